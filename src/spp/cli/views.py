"""Pieces of what status and watch show of a sweep."""

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
from spp.schedule.status import StageStatus, State

_BAR_WIDTH = 24
_PROGRESS_WIDTH = 12


def headline(view: SweepView, root: Path) -> str:
    """The first line: which sweep, how large, where."""
    points = view.status.points
    num_done = sum(point.state is State.DONE for point in points)
    size = f"{num_done:,} of {count(len(points), 'point')} done, {count(len(view.status.stages), 'stage')}"
    called = f" ({escape(view.called)})" if view.called else ""
    to_go = "" if view.to_go_s is None else f", about {human_time(view.to_go_s)} to go"
    where = f"cluster={view.cluster}, store {escape(str(root))}"
    return f"[bold]{escape(view.status.sweep)}[/]{called}  {size}{to_go}, {where}"


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


def points(view: SweepView, most: int) -> Table:
    """One row per point: the unfinished first, with what has failed or runs of it."""
    order = {State.FAILED: 0, State.LOST: 0, State.RUNNING: 1, State.BLOCKED: 2, State.QUEUED: 3, State.CANCELLED: 3}
    ranked = sorted(view.status.points, key=lambda point: order.get(point.state, 4))
    table = make_table("point", "state", "done>", "blocked by")
    kinds = {stage.key: stage.kind for stage in view.status.stages}
    for point in ranked[:most]:
        done = f"{point.counts.get('done', 0)}/{sum(point.counts.values())}"
        culprit = f"{kinds[point.culprit]} {point.culprit[:8]}" if point.culprit else ""
        table.add_row(escape(point.name), styled(point.state), done, culprit)
    if len(ranked) > most:
        table.add_row(f"... and {len(ranked) - most:,} more")
    return table


def running(view: SweepView, most: int) -> Table | None:
    """The stages that run, with how far they are and where; None if there are none."""
    stages = [stage for stage in view.status.stages if stage.state is State.RUNNING]
    if not stages:
        return None
    table = make_table("running", "key", "since>", "progress", "", "loss>", "held out>", "where")
    for stage in stages[:most]:
        since = "" if stage.seconds is None else human_time(stage.seconds)
        bar = progress_bar(stage.progress, _PROGRESS_WIDTH)
        told = escape(progress_of(stage)) or "starting"
        newest = view.newest.get(stage.key)
        loss, metric = ("", "") if newest is None else (newest.loss_text, escape(newest.metric_text))
        table.add_row(escape(title_of(stage)), stage.key[:8], since, bar, told, loss, metric, quiet(place_of(stage)))
    if len(stages) > most:
        table.add_row(f"... and {len(stages) - most:,} more")
    return table


def waiting(view: SweepView, most: int) -> Table | None:
    """What the stages that have not begun wait for, one line for equal reasons; None if there are none."""
    reasons: dict[tuple[str, str], list[StageStatus]] = {}
    for stage in view.status.stages:
        if stage.waits:
            # Inputs are named by their stages: those of a kind have the same reason.
            kind = stage.waits if not stage.waits.startswith("inputs: ") else "inputs"
            reasons.setdefault((stage.kind, kind), []).append(stage)
    if not reasons:
        return None
    table = make_table("waiting", "stages>", "waits for", "such as")
    for (kind, _), stages in list(reasons.items())[:most]:
        table.add_row(kind, f"{len(stages):,}", escape(stages[0].waits or ""), quiet(stages[0].key[:8]))
    if len(reasons) > most:
        table.add_row(f"... and {len(reasons) - most:,} more")
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
    """What to do next."""
    lines = []
    if view.problem:
        lines.append(f"[yellow]SLURM gives no answer[/], so this is what the files say: {escape(view.problem)}")
    if view.ok and view.failures:
        lines.append(f"{count(len(view.failures), 'stage')} failed, as cluster.allow_failure lets them")
    if view.ok:
        lines.append(f"tables and figures: {escape(command('report all', view.status.sweep, root))}")
    elif view.abandoned:
        left = count(view.totals.get(State.QUEUED.value, 0), "stage")
        remedy = escape(command("retry", view.status.sweep, root))
        lines.append(f"[yellow]nobody works on {left} left to do[/]; go on with: {remedy}")
    elif view.settled and not view.failures:
        remedy = escape(command("retry", view.status.sweep, root))
        lines.append(f"[yellow]cancelled[/]; go on with: {remedy}")
    elif view.settled:
        logs = escape(command("logs", view.failures[0].key[:8], root))
        failures = f"{count(len(view.failures), 'stage')} failed or lost"
        remedy = escape(command("retry", view.status.sweep, root))
        lines.append(f"{failures}; look with: {logs}; go on with: {remedy}")
    return lines
