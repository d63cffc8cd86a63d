"""Pieces of what status and watch show of a sweep."""

from collections import Counter
from pathlib import Path

from rich.table import Table

from spp.cli.markup import escape
from spp.cli.sweeps import SweepView, command
from spp.cli.table import (
    STYLES,
    count,
    human_time,
    last_line,
    make_table,
    place_of,
    progress_bar,
    progress_of,
    quiet,
    state_bar,
    styled,
    title_of,
)
from spp.schedule.status import State

_BAR_WIDTH = 24
_PROGRESS_WIDTH = 12


def headline(view: SweepView, root: Path) -> str:
    """The first line: which sweep, how large, where."""
    points = view.status.points
    num_done = sum(point.state is State.DONE for point in points)
    size = f"{num_done:,} of {count(len(points), 'point')} done, {count(len(view.status.stages), 'stage')}"
    return f"[bold]{escape(view.status.sweep)}[/]  {size}, cluster={view.cluster}, store {escape(str(root))}"


def by_kind(view: SweepView) -> Table:
    """One row per kind of stage: a bar, and the number in each state that occurs."""
    states = [state for state in State if view.totals.get(state.value)]
    table = make_table("stage", "", "stages>", *(f"{state.value}>" for state in states))
    for state, column in zip(states, table.columns[3:], strict=True):
        column.style = STYLES[state]
    for kind, counts in view.status.counts.items():
        numbers = (f"{counts[state.value]:,}" if counts.get(state.value) else "" for state in states)
        table.add_row(kind, state_bar(counts, _BAR_WIDTH), f"{sum(counts.values()):,}", *numbers)
    return table


def running(view: SweepView, most: int) -> Table | None:
    """The stages that run, with how far they are and where; None if there are none."""
    stages = [stage for stage in view.status.stages if stage.state is State.RUNNING]
    if not stages:
        return None
    table = make_table("running", "key", "since>", "progress", "", "where")
    for stage in stages[:most]:
        since = "" if stage.seconds is None else human_time(stage.seconds)
        bar = progress_bar(stage.progress, _PROGRESS_WIDTH)
        told = escape(progress_of(stage)) or "starting"
        table.add_row(escape(title_of(stage)), stage.key[:8], since, bar, told, quiet(place_of(stage)))
    if len(stages) > most:
        table.add_row(f"... and {len(stages) - most:,} more")
    return table


def failed(view: SweepView, most: int) -> Table | None:
    """The stages that failed or were lost, one line each; None if there are none."""
    if not view.failures:
        return None
    table = make_table("failed", "key", "state", "why", "where")
    for stage in view.failures[:most]:
        why, where = escape(last_line(stage.error)), quiet(place_of(stage))
        table.add_row(escape(title_of(stage)), stage.key[:8], styled(stage.state), why, where)
    if len(view.failures) > most:
        table.add_row(f"... and {len(view.failures) - most:,} more")
    return table


def notes(view: SweepView, root: Path) -> list[str]:
    """Why queued stages wait, in SLURM's words, and what to do where nobody works on what is left."""
    lines = []
    if view.problem:
        lines.append(f"[yellow]SLURM gives no answer[/], so this is what the files say: {escape(view.problem)}")
    reasons = Counter(stage.error for stage in view.status.stages if stage.state is State.QUEUED and stage.error)
    if reasons:
        listed = ", ".join(f"{number:,} {escape(reason)}" for reason, number in reasons.most_common())
        lines.append(f"waiting: {listed}")
    if view.ok:
        lines.append(f"tables and figures: {escape(command('report all', view.status.sweep, root))}")
    elif view.abandoned:
        left = count(view.totals.get(State.QUEUED.value, 0), "stage")
        remedy = escape(command("retry", view.status.sweep, root))
        lines.append(f"[yellow]nobody works on {left} left to do[/]; go on with: {remedy}")
    elif view.settled:
        logs = escape(command("logs", view.failures[0].key[:8], root))
        failures = f"{count(len(view.failures), 'stage')} failed or lost"
        remedy = escape(command("retry", view.status.sweep, root))
        lines.append(f"{failures}; look with: {logs}; go on with: {remedy}")
    return lines
