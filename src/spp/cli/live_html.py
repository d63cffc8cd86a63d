"""What the page of a sweep that goes on shows: the same as `spp watch` in a terminal, and curves and results."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spp.cli.results import result_of, result_text
from spp.cli.sweeps import SweepView
from spp.cli.table import human_time, last_line, place_of, progress_of, title_of
from spp.record.record import read_record
from spp.report.html.live import Curve, LivePage, LiveStage, live_page
from spp.report.published import load_published
from spp.report.table import Cell, Column, Table
from spp.report.tables import family
from spp.schedule.status import StageStatus, State
from spp.store.atomic import write_text
from spp.store.store import Store

_MAX_CURVES = 12
_MAX_ROWS = 200
_ORDER = (State.DONE, State.RUNNING, State.FAILED, State.LOST, State.CANCELLED, State.BLOCKED, State.QUEUED)
_UNFINISHED = (State.FAILED, State.LOST, State.RUNNING, State.BLOCKED, State.CANCELLED, State.QUEUED)


class HtmlFile:
    """Writes the page of a sweep into a file, whole at every moment."""

    def __init__(self, store: Store, file: Path, interval_s: float) -> None:
        self._store = store
        self._file = file
        self._interval_s = interval_s

    def write(self, view: SweepView, *, is_last: bool) -> None:
        """Replace the file. `is_last`: nobody will write it again, so that it need not be loaded again."""
        page = _page(self._store, view, None if is_last else self._interval_s)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, live_page(page), durable=False)


def _page(store: Store, view: SweepView, refresh_s: float | None) -> LivePage:
    status = view.status
    plan = store.read_plan(status.sweep)
    done = frozenset(stage.key for stage in status.stages if stage.state is State.DONE)
    num_done = sum(point.state is State.DONE for point in status.points)
    tiles = {
        "state": view.word,
        "points": f"{num_done:,} of {len(status.points):,}",
        "stages": f"{len(done):,} of {len(status.stages):,}",
        "to go": "nothing"
        if view.settled
        else "unknown"
        if view.to_go_s is None
        else f"about {human_time(view.to_go_s)}",
        "result": result_text(result_of(store, plan, done)) or "none yet",
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    record = read_record(store, [status.sweep])
    return LivePage(
        title=view.called or status.sweep,
        lead=f"Sweep {status.sweep}, cluster={view.cluster}, store {store.root}",
        tiles=tiles,
        shares={state.value: view.totals.get(state.value, 0) for state in _ORDER},
        tables=(_points(view), _stages(view)),
        stages=_curves(store, view),
        results=family.tables(record, load_published()) if record.rows else (),
        notes=[view.problem] if view.problem else [],
        refresh_s=refresh_s,
    )


def _points(view: SweepView) -> Table:
    """How far every point is, those at work first; words that all points share are said once."""
    ranked = sorted(view.status.points, key=lambda point: point.state is State.DONE)
    shared = _shared_words([point.name for point in ranked])
    rows = [
        (
            point.state.value,
            f"{point.counts.get('done', 0)}/{sum(point.counts.values())}",
            " ".join(word for word in point.name.split() if word not in shared),
        )
        for point in ranked[:_MAX_ROWS]
    ]
    table = _table("points", "Points", ("state", "done", "point"), rows)
    return replace(table, legend=(f"All of them: {' '.join(shared)}.",)) if shared else table


def _shared_words(names: Sequence[str]) -> list[str]:
    """Words that all names have, in the order of the first; none where there is one name."""
    others = [set(name.split()) for name in names[1:]]
    return [word for word in names[0].split() if all(word in other for other in others)] if others else []


def _stages(view: SweepView) -> Table:
    """The stages that are not done: what runs and how far it is, what failed and why, what waits and for what."""
    rank = {state: place for place, state in enumerate(_UNFINISHED)}
    stages = sorted((stage for stage in view.status.stages if stage.state in rank), key=lambda one: rank[one.state])
    rows = [
        (title_of(stage), stage.key[:8], stage.state.value, _what(stage), place_of(stage))
        for stage in stages[:_MAX_ROWS]
    ]
    return _table("stages", "Stages at work, failed and waiting", ("stage", "key", "state", "what", "where"), rows)


def _what(stage: StageStatus) -> str:
    if stage.state is State.RUNNING:
        return progress_of(stage) or "starting"
    if stage.state in (State.FAILED, State.LOST):
        return last_line(stage.error)
    return f"waits for {stage.waits}" if stage.waits else ""


def _table(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    heads = tuple(Column(column, is_number=column == "done") for column in columns)
    return Table(name, title, heads, tuple(tuple(Cell(value) for value in row) for row in rows), ())


def _curves(store: Store, view: SweepView) -> list[LiveStage]:
    """Curves of what runs, and of what was done last as far as there is room."""
    running = [stage for stage in view.status.stages if stage.state is State.RUNNING]
    others = [stage for stage in reversed(view.status.stages) if stage.state in (State.DONE, State.FAILED)]
    found: list[LiveStage] = []
    for stage in (*running, *others):
        rows = [row for row in store.read_metrics(stage.kind, stage.key) if isinstance(row.get("epoch"), int | float)]
        names = ["loss", *dict.fromkeys(name for row in rows for name in row if name.startswith("val_"))]
        curves = [
            Curve(name.removeprefix("val_") + (" (validation)" if name != "loss" else ""), points)
            for name in names
            if (points := [(row["epoch"], row[name]) for row in rows if isinstance(row.get(name), int | float)])
        ]
        if curves:
            found.append(LiveStage(f"{title_of(stage)} {stage.key[:8]}", stage.state.value, curves))
        if len(found) == _MAX_CURVES:
            break
    return found
