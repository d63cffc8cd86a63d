"""What a sweep is about to do: how long it will still take, and what its running stages have recorded last."""

import time
from collections.abc import Mapping
from dataclasses import replace

from spp.cli.network_sizes import NetworkSizes
from spp.cli.specs import Specs
from spp.cli.sweeps import SweepView
from spp.methods.registry import search_cost
from spp.plan.graph import Plan
from spp.record.lines import NewestValues
from spp.schedule.estimate import Estimate, Estimator
from spp.schedule.status import StageStatus, State
from spp.schedule.time_to_go import remaining_of, time_to_go
from spp.store.store import Store

_REFRESH_SECONDS = 60.0
"""How long estimates hold: by then more stages may have told what they take."""


class Estimates:
    """Estimates of the stages of a sweep, kept for a while.

    Networks whose size nobody has asked for stay unknown: a look at a sweep shall not load torch.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made = float("-inf")
        self._found: Mapping[str, Estimate] = {}

    def of(self, plan: Plan) -> Mapping[str, Estimate]:
        """By key."""
        if time.monotonic() - self._made > _REFRESH_SECONDS:
            specs = Specs(self._store, {stage.key: stage.to_json() for stage in plan.stages.values()})
            estimator = Estimator(self._store, specs.of, NetworkSizes().size_of, search_cost)
            self._found = estimator.estimate(plan.stages.values())
            self._made = time.monotonic()
        return self._found


def with_prospects(store: Store, view: SweepView, estimates: Estimates) -> SweepView:
    """The view, with its time to go and the newest values of what runs."""
    running = [stage for stage in view.status.stages if stage.state is State.RUNNING]
    newest = {stage.key: NewestValues.of(store.read_metrics(stage.kind, stage.key)) for stage in running}
    return replace(
        view, newest=newest, to_go_s=None if view.settled or view.is_cancelled else _to_go(store, view, estimates)
    )


def _to_go(store: Store, view: SweepView, estimates: Estimates) -> float | None:
    """Seconds until all is done that may still be; None if that is not known of a stage."""
    plan = store.read_plan(view.status.sweep)
    costs = estimates.of(plan)
    remaining: dict[str, float] = {}
    for stage in view.status.stages:
        if stage.state in (State.RUNNING, State.QUEUED):
            left = _left(stage, costs.get(stage.key))
            if left is None:
                return None
            remaining[stage.key] = left
    num_running = sum(stage.state is State.RUNNING for stage in view.status.stages)
    limit = store.read_cluster(view.status.sweep).get("max_parallel")
    return time_to_go(plan, remaining, max(1, num_running, limit if isinstance(limit, int) else 0))


def _left(stage: StageStatus, cost: Estimate | None) -> float | None:
    progress = stage.progress
    share = None if progress is None or progress.total <= 0 else min(1.0, progress.done / progress.total)
    is_running = stage.state is State.RUNNING
    expected = None if cost is None else cost.seconds
    return remaining_of(stage.seconds if is_running else None, expected, share if is_running else None)
