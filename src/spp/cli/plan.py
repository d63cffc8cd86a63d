"""spp plan: what `spp run` with the same words would do."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spp.cli.compose import compose_points
from spp.cli.display import count
from spp.cli.planning import Planned, plan_sweep
from spp.schedule.estimate import Estimate, estimate, total_gpu_hours
from spp.schedule.status import State, plan_status
from spp.store.provenance import is_other_code
from spp.store.store import Store


def plan(words: Sequence[str], multirun: bool, *, as_json: bool) -> int:
    """Print the merged graph with the state and the expected cost of every stage; changes nothing."""
    planned = plan_sweep(compose_points(words, multirun))
    store = Store(planned.store)
    rows = plan_rows(planned, store)
    if as_json:
        print(json.dumps({"stages": rows, "num_points": len(planned.plan.points)}, indent=1))
        return 0
    console = Console(soft_wrap=not rows, highlight=False)
    console.print(_table(rows))
    to_run = [row for row in rows if row["state"] not in (State.DONE, State.RUNNING)]
    num_uses = sum(len(planned.plan.stages_of(point)) for point in planned.plan.points)
    hours, num_unknown = _gpu_hours(to_run)
    console.print(
        f"{count(planned.plan.points, 'point')}, {num_uses} stages asked for, {len(rows)} after sharing, "
        f"{len(rows) - len(to_run)} done or running, {len(to_run)} to run; estimated {hours:.2f} GPU-hours"
        + (f" and {num_unknown} stages of unknown cost" if num_unknown else "")
    )
    for row in rows:
        if row["other_code"]:
            console.print(f"[yellow]{row['stage']} {row['key']} was made by other code of the same version[/]")
    return 0


def plan_rows(planned: Planned, store: Store) -> list[dict[str, Any]]:
    """One row per stage: kind, label, key, state, resources, inputs, estimated seconds and GPU-seconds."""
    states = plan_status(store, planned.plan)
    costs = estimate(store, planned.plan.stages.values())
    return [
        {
            "stage": stage.kind,
            "label": stage.label,
            "key": key,
            "state": states[key].state.value,
            "resources": dict(stage.resources),
            "points": len(planned.plan.points_of(key)),
            "inputs": list(planned.plan.parents(key)),
            "seconds": costs[key].seconds,
            "gpu_seconds": costs[key].gpu_seconds,
            "other_code": is_other_code(states[key].code_hash),
        }
        for key, stage in planned.plan.stages.items()
    ]


def _gpu_hours(rows: list[dict[str, Any]]) -> tuple[float, int]:
    return total_gpu_hours({row["key"]: Estimate(row["seconds"], row["gpu_seconds"]) for row in rows})


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("stage", "label", "key", "state", "points", "resources", "est. time"):
        table.add_column(name)
    for row in rows:
        resources = " ".join(f"{name}={value}" for name, value in row["resources"].items())
        seconds = "?" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        state = row["state"]
        table.add_row(
            row["stage"],
            escape(row["label"]),
            row["key"][:12],
            state,
            str(row["points"]),
            resources,
            "" if state == State.DONE else seconds,
        )
    return table
