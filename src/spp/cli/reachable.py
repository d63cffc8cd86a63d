"""What a sweep leaves out of the budgets that were asked for: where it has several methods, what one cannot serve."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from spp.cli.pipelines import find_pipeline
from spp.cli.sweep_plan import Planned
from spp.plan.graph import Plan, Point
from spp.plan.setup import Setup


def leave_out(planned: Planned, refused: Mapping[str, Mapping[float, str]]) -> tuple[Plan, list[str]]:
    """The plan without what cannot be, and what to say of it.

    Args:
        planned: the sweep.
        refused: by name of the point the budgets that its method cannot serve, and why.

    Raises:
        ValueError: one line; there is one method alone, or nothing is left.
    """
    points = planned.plan.points
    methods = {point.name: point.meta["method"] for point in points}
    reasons = sorted({f"method={methods[name]}: {why}" for name, sizes in refused.items() for why in sizes.values()})
    if not reasons:
        return planned.plan, []
    served = [_without(point, refused.get(point.name, {}), planned) for point in points]
    left = [point for point in served if point.stages]
    if len(set(methods.values())) == 1 or not left:
        raise ValueError(reasons[0])
    return Plan.merge(left), [f"left out: {reason}" for reason in reasons]


def _without(point: Point, budgets: Collection[float], planned: Planned) -> Point:
    """The point without some budgets, which it remembers for the report."""
    if not budgets:
        return point
    setup = planned.setups[point.name]
    assert isinstance(setup, Setup)
    values = [size for size in setup.budget.values if size not in budgets]
    pipeline = find_pipeline(point.meta["pipeline"], setup.method)
    smaller = replace(setup, budget=replace(setup.budget, values=values)) if values else None
    stages = () if smaller is None else tuple(pipeline.stages(smaller))
    return replace(point, stages=stages, meta={**point.meta, "out_of_reach": list(budgets)})
