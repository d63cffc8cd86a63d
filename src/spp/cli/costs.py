"""What the stages of a planned sweep will cost, and whether its budgets can be reached at all."""

from collections.abc import Mapping
from typing import Any

from spp.cli.network_sizes import NetworkSizes
from spp.cli.specs import Specs
from spp.cli.sweep_plan import Planned
from spp.methods.registry import search_cost
from spp.plan.graph import Plan
from spp.plan.setup import Setup
from spp.schedule.estimate import Estimate, Estimator
from spp.schedule.status import StageStatus, State
from spp.store.store import Store


def expected_costs(
    planned: Planned, store: Store, states: Mapping[str, StageStatus], sizes: NetworkSizes
) -> dict[str, Estimate]:
    """The estimate of every stage by its key; of one that is done what it took.

    Raises:
        ValueError: one line, if a network cannot be as small, or as large, as a budget wants it.
    """
    stages = planned.plan.stages
    missing = [stage for key, stage in stages.items() if states[key].state is not State.DONE]
    costs = {
        key: Estimate(states[key].seconds, 0.0, "done", "it is done")
        for key in stages
        if states[key].state is State.DONE
    }
    if not missing:
        return costs
    specs = Specs(store, {stage.key: stage.to_json() for stage in stages.values()})
    # Twice where something was not known at first: a process of its own answers all questions together.
    while True:
        refused = _refused(planned, sizes, {stage.key for stage in missing})
        found = Estimator(store, specs.of, sizes.size_of, search_cost).estimate(missing)
        if not sizes.ask():
            break
    if refused is not None:
        raise ValueError(refused)
    return costs | found


def budgets_out_of_reach(planned: Planned, sizes: NetworkSizes) -> dict[str, dict[float, str]]:
    """By name of the point, the budgets that its method cannot serve although others can, and why."""
    setups = {name: setup for name, setup in planned.setups.items() if isinstance(setup, Setup)}
    found = {name: sizes.out_of_reach(setup) for name, setup in setups.items()}
    if sizes.has_questions:
        for setup in setups.values():  # what the estimates will ask, as one process answers all of it
            sizes.size_of(setup.model.identity(), setup.data.identity())
            sizes.refusal(setup)
        sizes.ask()
        found = {name: sizes.out_of_reach(setup) for name, setup in setups.items()}
    return {name: budgets for name, budgets in found.items() if budgets}


def method_and_seed(plan: Plan, key: str) -> dict[str, Any]:
    """The method whose stage it is, and its seed; None of what it does not depend on."""
    config = plan.stages[key].config
    methods = {point.meta.get("method") for point in plan.points if point.name in plan.points_of(key)}
    own = config.get("method", {}).get("name")
    method = own or (methods.pop() if len(methods) == 1 and plan.stages[key].kind != "dense" else None)
    return {"method": method, "seed": config.get("seed")}


def _refused(planned: Planned, sizes: NetworkSizes, missing: set[str]) -> str | None:
    """Why the first point that has something left to do cannot have it."""
    found = None
    for point in planned.plan.points:
        if missing.intersection(stage.key for stage in point.stages):
            setup = planned.setups[point.name]
            found = (sizes.refusal(setup) if isinstance(setup, Setup) else None) or found
    return found
