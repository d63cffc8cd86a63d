"""spp plan: what `spp run` with the same words would do."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from spp.cli.costs import budgets_out_of_reach, expected_costs, method_and_seed
from spp.cli.execute import check_fits
from spp.cli.markup import escape
from spp.cli.network_sizes import NetworkSizes
from spp.cli.points import compose_points
from spp.cli.reachable import leave_out
from spp.cli.sweep_plan import Planned, plan_sweep
from spp.cli.table import count, human_resources, human_time, make_console, make_table, styled, title
from spp.schedule.batches import make_batches
from spp.schedule.estimate import Estimate
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
    planned = plan_sweep(compose_points(words, multirun, config_dirs), may_lack_data=True)
    check_fits(planned.plan, planned.cluster)
    store, sizes = Store(planned.store), NetworkSizes()
    reachable, left_out = leave_out(planned, budgets_out_of_reach(planned, sizes))
    planned = replace(planned, plan=reachable)
    states = _states_of(planned, store)
    costs = expected_costs(planned, store, states, sizes)
    rows = plan_rows(planned, states, costs)
    totals = plan_totals(planned, rows)
    if as_json:
        known = {
            str(setup.data.factory or setup.data.name): dict(setup.data.fingerprint)
            for setup in planned.setups.values()
        }
        print(json.dumps({"stages": rows, **totals, "data": known, "lacking": list(planned.lacking)}, indent=1))
        return 0
    console = make_console()
    submitted = planned.cluster.name == "slurm"
    make = _by_stage if len(rows) <= MAX_ROWS else _by_kind
    console.print(make(rows, submitted=submitted))
    _print_totals(console, totals, submitted=submitted)
    _print_bases(console, rows)
    for line in left_out:
        console.print(escape(line), soft_wrap=True)
    _print_lacking(console, planned)
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


def plan_rows(
    planned: Planned, states: Mapping[str, StageStatus], costs: Mapping[str, Estimate]
) -> list[dict[str, Any]]:
    """One row per stage: kind, label, method and seed, key, state, job, resources, inputs, job array, and its estimate.

    `job` is the SLURM job that is at it, `array` numbers the calls of sbatch, from 1; None where there is none.
    `method` is that of the stage or, of one that methods share, None.
    """
    array_of = _arrays(planned, states) if planned.cluster.name == "slurm" else {}
    return [
        {
            "stage": stage.kind,
            "label": stage.label,
            **method_and_seed(planned.plan, key),
            "key": key,
            "state": states[key].state.value,
            "job": states[key].job,
            "resources": dict(stage.resources),
            "array": array_of.get(key),
            "points": len(planned.plan.points_of(key)),
            "inputs": list(planned.plan.parents(key)),
            "seconds": costs[key].seconds,
            "gpu_seconds": costs[key].gpu_seconds,
            "macs": costs[key].macs,
            "estimated_by": costs[key].by,
            "basis": costs[key].basis,
            "other_code": is_other_code(states[key].code_hash),
        }
        for key, stage in planned.plan.stages.items()
    ]


def plan_totals(planned: Planned, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows add up to: stages by state, calls of sbatch, GPU-hours of what is still to do."""
    under_way = (State.DONE, State.RUNNING)
    missing = [row for row in rows if row["state"] not in under_way and not _waits(row["state"], row["job"])]
    known = [row for row in missing if row["seconds"] is not None]
    on_cpu = [row["seconds"] for row in known if not row["resources"].get("gpus_per_node")]
    return {
        "num_points": len(planned.plan.points),
        "num_uses": sum(len(planned.plan.stages_of(point)) for point in planned.plan.points),
        "num_stages": len(rows),
        "num_done": sum(row["state"] == State.DONE for row in rows),
        "num_running": sum(row["state"] == State.RUNNING for row in rows),
        "num_waiting": sum(_waits(row["state"], row["job"]) for row in rows),
        "num_missing": len(missing),
        "num_arrays": len({row["array"] for row in missing} - {None}),
        "gpu_hours": sum(row["gpu_seconds"] for row in known) / 3600,
        "cpu_hours": sum(on_cpu) / 3600,
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


def _by_stage(rows: Sequence[Mapping[str, Any]], *, submitted: bool) -> Table:
    array_head = ["array>"] if submitted else []
    table = make_table("stage", "method", "seed>", "key", "state", "points>", *array_head, "time>", "asks for")
    for row in rows:
        state = State(row["state"])
        array = [str(row["array"] or "")] if submitted else []
        table.add_row(
            escape(title(row["stage"], row["label"])),
            escape(row["method"] or ""),
            "" if row["seed"] is None else str(row["seed"]),
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
        seconds = _range_text([row["seconds"] for row in members if row["state"] != State.DONE]) if num_todo else ""
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
        on_cpu = human_time(3600 * totals["cpu_hours"])
        parts = [f"{totals['gpu_hours']:.2f} GPU-hours"] if totals["gpu_hours"] else []
        parts += [f"{on_cpu} on the CPU"] if totals["cpu_hours"] or not parts else []
        if unknown == totals["num_missing"]:
            console.print("what they cost is not known", soft_wrap=True)
        else:
            console.print(f"estimated {' and '.join(parts)}, one stage after the other{unsure}", soft_wrap=True)


def _range_text(seconds: Sequence[float | None]) -> str:
    """The time of one of several stages: `4 min 10 s`, or `12 s to 4 min 10 s`."""
    known = [value for value in seconds if value is not None]
    if not known:
        return "?"
    texts = dict.fromkeys((human_time(min(known)), human_time(max(known))))
    return " to ".join(texts)


def _print_bases(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """What the times rest on: a line for each basis, with the kinds of stages that it is for."""
    kinds_of: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row["state"] != State.DONE:
            kinds_of.setdefault((row["estimated_by"], row["basis"]), {})[row["stage"]] = None
    for (by, basis), kinds in kinds_of.items():
        console.print(f"  [dim]{by}: {escape(', '.join(kinds))}: {escape(basis)}[/]", soft_wrap=True)


def _print_lacking(console: Console, planned: Planned) -> None:
    if planned.lacking:
        names = ", ".join(planned.lacking)
        hashed = all(setup.data.fingerprint.get("sha256") for setup in planned.setups.values())
        keys = "" if hashed else "; without its sha256 the keys are not those of the run"
        console.print(f"[yellow]{escape(names)} is not here[/]: planned by data.manifest{keys}", soft_wrap=True)


def _print_other_code(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    others = [f"{row['stage']} {row['key'][:8]}" for row in rows if row["other_code"]]
    if others:
        some = ", ".join(others[:MAX_NAMED]) + (", ..." if len(others) > MAX_NAMED else "")
        stages = count(len(others), "stage") + (" was" if len(others) == 1 else " were")
        console.print(f"[yellow]{stages} made by other code of the same version[/]: {some}", soft_wrap=True)
