"""What `run` and `retry` tell programs."""

from typing import Any

from spp.plan.graph import Plan
from spp.schedule.status import State, plan_status
from spp.store.store import Store


def outcome_json(store: Store, plan: Plan, sweep: str, ok: bool) -> dict[str, Any]:
    """sweep, ok, and the keys of its stages by state."""
    by_state: dict[str, list[str]] = {state.value: [] for state in State}
    for key, stage in plan_status(store, plan).items():
        by_state[stage.state.value].append(key)
    return {"sweep": sweep, "ok": ok, "stages": by_state}
