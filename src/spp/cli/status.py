"""spp status: the state of a sweep."""

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spp.schedule.status import StageStatus, State, SweepStatus, sweep_status
from spp.store.store import Store

_STYLES = {
    State.DONE: "green",
    State.RUNNING: "blue",
    State.QUEUED: "",
    State.BLOCKED: "yellow",
    State.FAILED: "red",
    State.LOST: "red",
}


def status(root: Path, sweep: str | None, *, as_json: bool) -> int:
    """Print one row per stage kind and per point; failures with the last lines of their errors."""
    state = sweep_status(Store(root), newest_sweep(root, sweep))
    if as_json:
        print(json.dumps(state.to_json(), indent=1))
        return 0
    console = Console(highlight=False)
    console.print(f"sweep [bold]{escape(state.sweep)}[/] in {escape(str(root))}")
    console.print(_by_kind(state))
    console.print(_by_point(state))
    for stage in state.stages:
        if stage.state in (State.FAILED, State.LOST):
            console.print(f"[red]{stage.state.value}[/] {stage.kind} {escape(stage.label)} {stage.key}")
            console.print(stage.error or "it ended without a word", style="dim", markup=False)
        elif stage.state is State.RUNNING:
            console.print(_progress(stage))
    return 0


def newest_sweep(root: Path, sweep: str | None) -> str:
    """`sweep`, or the newest one of the store.

    Raises:
        ValueError: if the store has none.
    """
    name = sweep or Store(root).latest()
    if name is None:
        raise ValueError(
            f"paths.store: {str(root)!r} holds no sweep; allowed: a store that `spp run` has written to; run something "
            "first, or give paths.store=DIR"
        )
    return name


def _by_kind(state: SweepStatus) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("stage")
    for column in State:
        table.add_column(column.value, justify="right", style=_STYLES[column])
    for kind, counts in state.counts.items():
        table.add_row(kind, *(str(counts.get(column.value, "")) for column in State))
    return table


def _by_point(state: SweepStatus) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("point", "state", "done", "culprit"):
        table.add_column(name)
    kinds = {stage.key: stage.kind for stage in state.stages}
    for point in state.points:
        total = sum(point.counts.values())
        culprit = f"{kinds[point.culprit]} {point.culprit[:12]}" if point.culprit else ""
        word = f"[{_STYLES[point.state]}]{point.state.value}[/]" if _STYLES[point.state] else point.state.value
        table.add_row(escape(point.name), word, f"{point.counts.get('done', 0)}/{total}", culprit)
    return table


def _progress(stage: StageStatus) -> str:
    progress = stage.progress
    share = f"{progress.done:.0f}/{progress.total:.0f} {progress.unit} {escape(progress.message)}" if progress else ""
    return f"[blue]running[/] {stage.kind} {stage.label} {stage.key[:12]} {stage.seconds or 0:.0f} s  {share}"
