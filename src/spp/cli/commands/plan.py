"""spp plan: what `spp run` with the same words would do."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from spp.cli.markup import escape
from spp.cli.points import compose_points
from spp.cli.sweep_plan import Planned, plan_sweep
from spp.cli.table import count, human_resources, human_time, make_console, make_table, styled, title
from spp.plan.spec import Stage
from spp.schedule.batches import make_batches
from spp.schedule.estimate import Estimate, estimate
from spp.schedule.status import StageStatus, State, plan_status
from spp.store.provenance import is_other_code
from spp.store.store import Store

DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own default, for machines that cannot ask the site."""

MAX_NAMED = 5
MAX_ROWS = 60
"""Stages that are listed one by one; of more there is a row per kind, and --json has them all."""


def plan(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = (), *, as_json: bool) -> int:
    """Print the merged graph with the state and the expected cost of every stage; changes nothing."""
    planned = plan_sweep(compose_points(words, multirun, config_dirs))
    store = Store(planned.store)
    states = _states_of(planned, store)
    rows = plan_rows(planned, store, states)
    totals = plan_totals(planned, rows)
    if as_json:
        print(json.dumps({"stages": rows, **totals}, indent=1))
        return 0
    console = make_console()
    submitted = planned.cluster.name == "slurm"
    make = _by_stage if len(rows) <= MAX_ROWS else _by_kind
    console.print(make(rows, submitted=submitted))
    _print_totals(console, totals, submitted=submitted)
    _print_other_code(console, rows)
    return 0


def _states_of(planned: Planned, store: Store) -> dict[str, StageStatus]:
    """The state of every stage; with SLURM the queue is asked about those that somebody has submitted."""
    states = plan_status(store, planned.plan)
    if planned.cluster.name != "slurm":
        return states
    from spp.schedule.sweep_state import live_of_stages

    is_open = (stage for key, stage in planned.plan.stages.items() if states[key].state is not State.DONE)
    live = live_of_stages(store, is_open)
    return plan_status(store, planned.plan, live) if live.jobs else states


def plan_rows(planned: Planned, store: Store, states: Mapping[str, StageStatus]) -> list[dict[str, Any]]:
    """One row per stage: kind, label, key, state, job, resources, inputs, job array, estimated seconds and GPU-seconds.

    `job` is the SLURM job that is at it, `array` numbers the calls of sbatch, from 1; None where there is none.
    """
    costs = estimate(store, planned.plan.stages.values())
    array_of = _arrays(planned, states) if planned.cluster.name == "slurm" else {}
    return [
        {
            "stage": stage.kind,
            "label": stage.label,
            "key": key,
            "state": states[key].state.value,
            "job": states[key].job,
            "resources": dict(stage.resources),
            "array": array_of.get(key),
            "points": len(planned.plan.points_of(key)),
            "inputs": list(planned.plan.parents(key)),
            "seconds": costs[key].seconds,
            "gpu_seconds": _gpu_seconds(stage, costs[key]),
            "other_code": is_other_code(states[key].code_hash),
        }
        for key, stage in planned.plan.stages.items()
    ]


def plan_totals(planned: Planned, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows add up to: stages by state, calls of sbatch, GPU-hours of what is still to do."""
    under_way = (State.DONE, State.RUNNING)
    missing = [row for row in rows if row["state"] not in under_way and not _waits(row["state"], row["job"])]
    known = [row["gpu_seconds"] for row in missing if row["gpu_seconds"] is not None]
    return {
        "num_points": len(planned.plan.points),
        "num_uses": sum(len(planned.plan.stages_of(point)) for point in planned.plan.points),
        "num_stages": len(rows),
        "num_done": sum(row["state"] == State.DONE for row in rows),
        "num_running": sum(row["state"] == State.RUNNING for row in rows),
        "num_waiting": sum(_waits(row["state"], row["job"]) for row in rows),
        "num_missing": len(missing),
        "num_arrays": len({row["array"] for row in missing} - {None}),
        "gpu_hours": sum(known) / 3600,
        "num_unknown": len(missing) - len(known),
    }


def _arrays(planned: Planned, states: Mapping[str, StageStatus]) -> dict[str, int]:
    """Stages that would be submitted -> number of the batch."""
    live = {
        key: status.job
        for key, status in states.items()
        if status.job and (status.state is State.RUNNING or _waits(status.state, status.job))
    }
    # Equal texts are equal resources; what runs elsewhere is waited for and not submitted.
    missing = {
        key: json.dumps(stage.resources, sort_keys=True)
        for key, stage in planned.plan.stages.items()
        if states[key].state not in (State.DONE, State.RUNNING) and key not in live
    }
    size = planned.cluster.max_array_size or DEFAULT_MAX_ARRAY_SIZE
    batches = make_batches(planned.plan, missing, live, size)
    return {key: number for number, batch in enumerate(batches, 1) for key in batch.tasks.values()}


def _waits(state: str, job: str | None) -> bool:
    """Whether a stage waits in the queue already."""
    return state == State.QUEUED and job is not None


def _gpu_seconds(stage: Stage, cost: Estimate) -> float | None:
    """What a stage costs on its GPUs; what was measured on a CPU says nothing about that."""
    if not stage.resources.get("gpus_per_node"):
        return 0.0
    return cost.gpu_seconds or None


def _by_stage(rows: Sequence[Mapping[str, Any]], *, submitted: bool) -> Table:
    array_head = ["array>"] if submitted else []
    table = make_table("stage", "key", "state", "points>", *array_head, "time>", "asks for")
    for row in rows:
        state = State(row["state"])
        array = [str(row["array"] or "")] if submitted else []
        table.add_row(
            escape(title(row["stage"], row["label"])),
            row["key"][:8],
            styled(state),
            str(row["points"]),
            *array,
            "" if state is State.DONE else human_time(row["seconds"]),
            escape(human_resources(row["resources"], submitted=submitted)),
        )
    return table


def _by_kind(rows: Sequence[Mapping[str, Any]], *, submitted: bool) -> Table:
    """One row for all stages of a kind that ask for the same; `time` is that of one of them."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        asked = human_resources(row["resources"], submitted=submitted)
        groups.setdefault((row["stage"], asked), []).append(row)
    array_head = ["arrays>"] if submitted else []
    table = make_table("stage", "stages>", "done>", "running>", "to do>", *array_head, "time>", "asks for")
    for (kind, asked), members in groups.items():
        states = Counter(row["state"] for row in members)
        num_waiting = sum(_waits(row["state"], row["job"]) for row in members)
        num_todo = len(members) - states[State.DONE] - states[State.RUNNING] - num_waiting
        numbers = (len(members), states[State.DONE], states[State.RUNNING], num_todo)
        arrays = [str(len({row["array"] for row in members} - {None}))] if submitted else []
        seconds = human_time(members[0]["seconds"]) if num_todo else ""
        table.add_row(kind, *(f"{number:,}" for number in numbers), *arrays, seconds, escape(asked))
    return table


def _print_totals(console: Console, totals: Mapping[str, Any], *, submitted: bool) -> None:
    parts = [f"{totals['num_stages']:,} after sharing", f"{totals['num_done']:,} done"]
    parts += [f"{totals['num_running']:,} running elsewhere"] if totals["num_running"] else []
    parts += [f"{totals['num_waiting']:,} submitted before"] if totals["num_waiting"] else []
    parts += [f"{totals['num_missing']:,} to {'submit' if submitted else 'run'}"]
    if submitted and totals["num_missing"]:
        parts[-1] += f" by {count(totals['num_arrays'], 'call')} of sbatch"
    size = f"{count(totals['num_points'], 'point')}, {count(totals['num_uses'], 'stage')} asked for"
    console.print(f"\n{', '.join([size, *parts])}", soft_wrap=True)
    if totals["num_missing"]:
        unknown = totals["num_unknown"]
        unsure = f", without {count(unknown, 'stage')} of unknown cost" if unknown else ""
        console.print(f"estimated {totals['gpu_hours']:.2f} GPU-hours{unsure}", soft_wrap=True)


def _print_other_code(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    others = [f"{row['stage']} {row['key'][:8]}" for row in rows if row["other_code"]]
    if others:
        some = ", ".join(others[:MAX_NAMED]) + (", ..." if len(others) > MAX_NAMED else "")
        stages = count(len(others), "stage") + (" was" if len(others) == 1 else " were")
        console.print(f"[yellow]{stages} made by other code of the same version[/]: {some}", soft_wrap=True)
