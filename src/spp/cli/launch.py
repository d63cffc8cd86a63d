"""Writes a planned sweep down and carries it out."""

import hashlib
import json
import re
from dataclasses import dataclass

from rich.console import Console

from spp.cli.execute import carry_out, check_fits, report_finished
from spp.cli.markup import escape
from spp.cli.reachable import leave_out
from spp.cli.sweep_plan import Planned, with_points
from spp.cli.table import count
from spp.plan.graph import Plan
from spp.schedule.queue import job_liveness
from spp.store.about import write_about
from spp.store.atomic import is_full, is_unwritable
from spp.store.leftovers import remove_leftovers, remove_unfinished
from spp.store.store import Store

MAX_WORD_LENGTH = 40
"""Letters that the name of a sweep has of the names of its method, model and data."""


@dataclass(frozen=True)
class RunResult:
    """What became of a sweep: `ok` unless a stage failed; with SLURM and without waiting, that it was submitted."""

    sweep: str
    ok: bool


def run_planned(planned: Planned, *, wait: bool = False) -> RunResult:
    """Write a sweep down and carry it out; what others or earlier calls have done of it is not done again.

    Args:
        wait: with SLURM, stay until everything has ended instead of returning after the submission.

    Raises:
        ValueError: one line, before anything is written, if it cannot work.
    """
    store, console = Store(planned.store), Console(soft_wrap=True, highlight=False)
    check_fits(planned.plan, planned.cluster)
    reachable = leave_out_unreachable(planned, store, console)
    sweep = sweep_name(reachable)
    plan = with_points(reachable, sweep, planned.about.tags)
    num_uses = sum(len(plan.stages_of(point)) for point in plan.points)
    shared = f" ({num_uses:,} before sharing)" if num_uses > len(plan.stages) else ""
    size = f"{count(len(plan.points), 'point')}, {count(len(plan.stages), 'stage')}{shared}"
    called = f", called {escape(planned.about.name)}" if planned.about.name else ""
    console.print(f"sweep [bold]{escape(sweep)}[/]{called}: {size}, store {escape(str(store.root))}")
    if planned.from_environment:
        words = ", ".join(map(escape, planned.from_environment))
        console.print(f"read from the environment where a stage runs, and not stored: {words}")
    if all(store.is_done(stage.kind, stage.key) for stage in plan.stages.values()):
        return RunResult(sweep, _note_finished(planned, plan, store, sweep, console))
    _write_down(planned, plan, store, sweep)
    remove_unfinished(store, sweep)
    return RunResult(sweep, carry_out(plan, store, sweep, planned.cluster, console, trusted=planned.trusted, wait=wait))


def _note_finished(planned: Planned, plan: Plan, store: Store, sweep: str, console: Console) -> bool:
    """Write down a sweep of which nothing is left to do; a store that cannot be written, or is full, does as well."""
    try:
        _write_down(planned, plan, store, sweep)
    except OSError as error:
        if not (is_unwritable(error) or is_full(error)):
            raise
        console.print(f"the store cannot be written ({escape(str(error.strerror))}), and need not be")
    remove_unfinished(store, sweep)
    for stage in plan.stages.values():
        remove_leftovers(store, stage.kind, stage.key, store.stage_files(stage.kind, stage.key), job_liveness())
    return report_finished(plan, store, sweep, console)


def _write_down(planned: Planned, plan: Plan, store: Store, sweep: str) -> None:
    store.write_plan(sweep, plan, planned.cluster.plain())
    write_about(store, sweep, planned.about)


def sweep_name(plan: Plan) -> str:
    """A name that says what the sweep is about and is the same for the same words."""
    first = plan.points[0].meta
    parts = [first["method"], first["model"], first["data"]]
    content = json.dumps([[point.name, *(stage.key for stage in point.stages)] for point in plan.points])
    # It becomes the name of a folder and of jobs, and models may be called hf-hub:a/b.
    words = [re.sub(r"[^\w.-]+", "_", str(part), flags=re.ASCII).lstrip(".")[:MAX_WORD_LENGTH] for part in parts]
    return "-".join([*words, hashlib.sha256(content.encode()).hexdigest()[:6]])


def leave_out_unreachable(planned: Planned, store: Store, console: Console) -> Plan:
    """The plan without what cannot be; points that have finished need no check.

    Where several methods share a sweep, a budget that one of them cannot serve is left out for that one, which is said.

    Raises:
        ValueError: one line, before anything is written, if it cannot work.
    """
    points = planned.plan.points
    setups = {
        point.name: planned.setups[point.name]
        for point in points
        if not all(store.is_done(stage.kind, stage.key) for stage in point.stages)
    }
    if not setups:
        return planned.plan
    from spp.stages.preflight import check_all

    plan, said = leave_out(planned, check_all(setups))
    for line in said:
        console.print(escape(line))
    return plan
