"""Shows a sweep while it goes on: a live table in a terminal, lines in a pipe, JSON for programs."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live

from spp.cli.prospects import Estimates, with_prospects
from spp.cli.sweeps import SweepView, view_sweep
from spp.cli.table import human_time, last_line, title_of
from spp.cli.views import by_kind, failed, headline, notes, points, running, waiting
from spp.record.lines import NewestValues
from spp.schedule.status import StageStatus, State
from spp.store.store import Store
from spp.text import visible

if TYPE_CHECKING:
    from spp.cli.live_html import HtmlFile

PATIENCE_SECONDS = 60.0
"""How long a sweep on which nobody works is watched on: another process, or a job that retries, may be about to."""

_MAX_FAILED = 8
_MAX_POINTS = 6
_MAX_WAITING = 4
_FEWEST_RUNNING = 3


class _Screen(Protocol):
    def show(self, view: SweepView) -> None: ...


def follow(store: Store, sweep: str, interval_s: float, *, as_json: bool = False, html: Path | None = None) -> bool:
    """Show a sweep every `interval_s` seconds until nothing of it can go on by itself; whether it got done.

    `html`: a file for a page of the same, written anew at every look.
    """
    idle_since: float | None = None
    estimates = Estimates(store)
    page = None if html is None else _html_file(store, html, interval_s)
    with _screen(store.root, as_json) as screen:
        while True:
            view = with_prospects(store, view_sweep(store, sweep), estimates)
            screen.show(view)
            now = time.monotonic()
            waits_for_others = view.abandoned or (view.settled and view.may_be_retried)
            idle_since = (idle_since or now) if waits_for_others else None
            gone = idle_since is not None and now - idle_since >= PATIENCE_SECONDS
            ends = view.ok or gone or view.surely_abandoned or (view.settled and not view.may_be_retried)
            if page is not None:
                page.write(view, is_last=ends)
            if ends:
                return view.ok
            time.sleep(interval_s)


def _html_file(store: Store, file: Path, interval_s: float) -> "HtmlFile":
    from spp.cli.live_html import HtmlFile  # it loads the tables of the report

    return HtmlFile(store, file, interval_s)


def _screen(root: Path, as_json: bool) -> AbstractContextManager[_Screen]:
    if as_json:
        return _plain(_JsonLines())
    return _table(root) if sys.stdout.isatty() else _plain(_Lines(root))


@contextmanager
def _plain(screen: _Screen) -> Iterator[_Screen]:
    yield screen


@contextmanager
def _table(root: Path) -> Iterator[_Screen]:
    console = Console(highlight=False)
    # Not transient: the last look stays on the screen. Drawn when there is something new, not by a clock.
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield _LiveTable(root, live, console)


class _LiveTable:
    """The whole picture, drawn over itself."""

    def __init__(self, root: Path, live: Live, console: Console) -> None:
        self._root = root
        self._live = live
        self._console = console

    def show(self, view: SweepView) -> None:
        num_points = min(len(view.status.points), _MAX_POINTS)
        num_fixed = 12 + len(view.status.counts) + min(len(view.failures), _MAX_FAILED) + num_points
        num_running = max(_FEWEST_RUNNING, self._console.height - num_fixed - 4)
        shown = (headline(view, self._root), by_kind(view), points(view, _MAX_POINTS), running(view, num_running))
        parts: list[RenderableType] = []
        for part in (*shown, waiting(view, _MAX_WAITING), failed(view, _MAX_FAILED)):
            if part is not None:
                parts += [part, ""]
        stamp = f"[dim]{time.strftime('%H:%M:%S')}{'' if view.settled else '   Ctrl-C leaves; the sweep goes on'}[/]"
        self._live.update(Group(*parts, *notes(view, self._root), stamp), refresh=True)


class _Lines:
    """One line whenever a stage has changed its state."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: dict[str, State] = {}

    def show(self, view: SweepView) -> None:
        states = {stage.key: stage.state for stage in view.status.stages}
        if states == self._last:
            return
        fresh = [stage for stage in view.failures if self._last.get(stage.key) is not stage.state]
        self._last = states
        totals = {state: view.totals.get(state.value, 0) for state in State}
        numbers = [f"{totals.pop(State.DONE)}/{len(states)} done"]
        numbers += [f"{number} {state.value}" for state, number in totals.items() if number]
        kinds = (
            f"{kind} {counts.get('done', 0)}/{sum(counts.values())}" for kind, counts in view.status.counts.items()
        )
        failures = [
            f"; {stage.state.value}: {title_of(stage)} {stage.key[:8]}: {last_line(stage.error)}" for stage in fresh
        ]
        to_go = "" if view.to_go_s is None else f", about {human_time(view.to_go_s)} to go"
        what = f"{', '.join(numbers)}  ({', '.join(kinds)}){to_go}{''.join(failures)}"
        print(f"{time.strftime('%H:%M:%S')}  {visible(what)}", flush=True)


class _JsonLines:
    """One JSON object whenever a stage has changed: its state, its place or its progress."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}

    def show(self, view: SweepView) -> None:
        rows = {stage.key: _row(stage, view.newest.get(stage.key)) for stage in view.status.stages}
        changed = [row for key, row in rows.items() if self._last.get(key) != row]
        self._last = rows
        if changed:
            line = {
                "time": time.time(),
                "sweep": view.status.sweep,
                "settled": view.settled,
                "ok": view.ok,
                "state": view.word,
                "to_go_s": view.to_go_s,
                "counts": view.status.counts,
                "changed": changed,
            }
            print(json.dumps(line), flush=True)


def _row(stage: StageStatus, newest: NewestValues | None) -> dict[str, Any]:
    progress = stage.progress
    values = newest or NewestValues()
    return {
        "kind": stage.kind,
        "key": stage.key,
        "label": stage.label,
        "state": stage.state.value,
        "host": stage.host,
        "job": stage.job,
        "culprit": stage.culprit,
        "error": stage.error,
        "waits": stage.waits,
        "loss": values.loss,
        "metric": values.metric,
        "value": values.value,
        "progress": progress and {"done": progress.done, "total": progress.total, "unit": progress.unit},
    }
