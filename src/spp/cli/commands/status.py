"""spp status: the state of a sweep."""

import json
from pathlib import Path

from rich.console import Console

from spp.cli.markup import escape
from spp.cli.prospects import Estimates, with_prospects
from spp.cli.sweeps import SweepView, find_sweep, view_sweep
from spp.cli.table import make_console, place_of, quiet, styled, title_of
from spp.cli.views import by_kind, headline, notes, points, running, waiting
from spp.store.store import Store
from spp.text import visible

MAX_STAGES = 20
"""Running stages, and failed ones, that are shown one by one."""


def status(root: Path, sweep: str | None, *, as_json: bool) -> int:
    """Print one row per stage kind and per point; failures with the last lines of their errors."""
    view = view_sweep(Store(root), find_sweep(root, sweep))
    view = with_prospects(Store(root), view, Estimates(Store(root)))
    if as_json:
        print(json.dumps({**view.status.to_json(), "state": view.word, "to_go_s": view.to_go_s}, indent=1))
        return 0
    console = make_console()
    for part in (
        headline(view, root),
        by_kind(view),
        points(view, len(view.status.points)),
        running(view, MAX_STAGES),
        waiting(view, MAX_STAGES),
    ):
        if part is not None:
            console.print(part, "", sep="\n")
    _print_failures(console, view)
    for line in notes(view, root):
        console.print(line, soft_wrap=True)
    return 0


def _print_failures(console: Console, view: SweepView) -> None:
    for stage in view.failures[:MAX_STAGES]:
        title = f"{styled(stage.state)} {escape(title_of(stage))} {stage.key} {quiet(place_of(stage))}"
        console.print(title.rstrip(), soft_wrap=True)
        error = visible(stage.error or "it ended without a word")
        console.print(f"{error}\n", style="dim", markup=False, soft_wrap=True)
    if len(view.failures) > MAX_STAGES:
        console.print(f"... and {len(view.failures) - MAX_STAGES:,} more; all of them: spp status --json\n")
