"""spp status: the state of a sweep."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spp.cli.markup import escape
from spp.cli.sweeps import SweepView, find_sweep, view_sweep
from spp.cli.table import make_console, make_table, place_of, quiet, styled, title_of
from spp.cli.views import by_kind, headline, notes, running
from spp.store.store import Store
from spp.text import visible

MAX_STAGES = 20
"""Running stages, and failed ones, that are shown one by one."""


def status(root: Path, sweep: str | None, *, as_json: bool) -> int:
    """Print one row per stage kind and per point; failures with the last lines of their errors."""
    view = view_sweep(Store(root), find_sweep(root, sweep))
    if as_json:
        print(json.dumps(view.status.to_json(), indent=1))
        return 0
    console = make_console()
    for part in (headline(view, root), by_kind(view), _by_point(view), running(view, MAX_STAGES)):
        if part is not None:
            console.print(part, "", sep="\n")
    _print_failures(console, view)
    for line in notes(view, root):
        console.print(line, soft_wrap=True)
    return 0


def _by_point(view: SweepView) -> Table:
    table = make_table("point", "state", "done>", "blocked by")
    kinds = {stage.key: stage.kind for stage in view.status.stages}
    for point in view.status.points:
        done = f"{point.counts.get('done', 0)}/{sum(point.counts.values())}"
        culprit = f"{kinds[point.culprit]} {point.culprit[:8]}" if point.culprit else ""
        table.add_row(escape(point.name), styled(point.state), done, culprit)
    return table


def _print_failures(console: Console, view: SweepView) -> None:
    for stage in view.failures[:MAX_STAGES]:
        title = f"{styled(stage.state)} {escape(title_of(stage))} {stage.key} {quiet(place_of(stage))}"
        console.print(title.rstrip(), soft_wrap=True)
        error = visible(stage.error or "it ended without a word")
        console.print(f"{error}\n", style="dim", markup=False, soft_wrap=True)
    if len(view.failures) > MAX_STAGES:
        console.print(f"... and {len(view.failures) - MAX_STAGES:,} more; all of them: spp status --json\n")
