"""spp logs: what the workers of a stage have printed."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spp.cli.specs import Specs
from spp.cli.sweeps import find_sweep, view_sweep
from spp.cli.table import title_of
from spp.plan.spec import StageRef
from spp.record.lines import line_of
from spp.schedule.batch_records import submission_log
from spp.schedule.status import State
from spp.store.about import named
from spp.store.marker import DONE
from spp.store.store import FAILED, Store
from spp.text import visible

POLL_SECONDS = 0.5
_BLOCK_BYTES = 1 << 16
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class _Printed:
    """Lines of a log, where they are, and what has to be said about them."""

    lines: list[str]
    file: Path | None
    note: str | None = None


def logs(root: Path, name: str, *, num_lines: int, follow: bool, as_json: bool) -> int:
    """Print the end of a stage's newest log; with `follow` go on until the stage ends, exit code 1 if it failed.

    Args:
        root: folder of the store.
        name: key of a stage, or how it begins; or a sweep, empty for the newest, of which the stage is taken that one
            would ask for: the first that failed, else one that runs, else the last that was done.
        num_lines: how many, from the end.
        follow: go on until the stage ends.
        as_json: print JSON.

    Raises:
        ValueError: if there is no such stage or sweep, or more than one.
    """
    store = Store(root)
    stage, title = _find(store, name)
    if not name and not as_json:
        print(f"spp: {visible(title)}", file=sys.stderr)
    if follow:
        for line in _following(store, stage, num_lines):
            row = {"stage": stage.kind, "key": stage.key, "line": line}
            print(json.dumps(row) if as_json else _harmless(line), flush=True)
        return 0 if store.is_done(stage.kind, stage.key) else 1
    printed = _printed(store, stage, num_lines)
    if as_json:
        file = None if printed.file is None else str(printed.file)
        told = {"file": file, "lines": printed.lines, "note": printed.note}
        print(json.dumps({"stage": stage.kind, "key": stage.key, **told}, indent=1))
        return 0
    if printed.note:
        print(f"spp: {visible(printed.note)}", file=sys.stderr)
    if printed.lines:
        print("\n".join(map(_harmless, printed.lines)))
    return 0


def _find(store: Store, name: str) -> tuple[StageRef, str]:
    """The stage that is meant, and what to call it."""
    is_sweep = name and (name in store.list_sweeps() or named(store, name) is not None)
    if name and not is_sweep and (store.find_stages(name) or not any(s.startswith(name) for s in store.list_sweeps())):
        spec = Specs(store).find(name)
        return StageRef(spec["kind"], spec["key"]), f"{spec['kind']} {spec['key']}"
    sweep = find_sweep(store.root, name or None)
    view = view_sweep(store, sweep)
    stages = view.status.stages
    by_state = {state: [stage for stage in stages if stage.state is state] for state in State}
    chosen = next(
        (by_state[state][0] for state in (State.FAILED, State.LOST, State.RUNNING) if by_state[state]),
        by_state[State.DONE][-1] if by_state[State.DONE] else stages[0],
    )
    return StageRef(chosen.kind, chosen.key), f"{title_of(chosen)} {chosen.key} of {sweep}, {chosen.state.value}"


def _harmless(line: str) -> str:
    """A line without colours, in which what else a terminal would obey is written out."""
    return visible(_COLOUR.sub("", line.rstrip("\r").rpartition("\r")[2]))


def newest_log(store: Store, stage: StageRef) -> Path | None:
    """The log that was written to last; for a job that died before its worker began, what SLURM's job printed."""
    folder = store.logs_dir(stage.kind, stage.key)
    # Of processes that train together the first one tells all; the others' logs carry their number.
    own = [path for path in folder.glob("*.log") if "-rank" not in path.name]
    return max(own, key=_written_at, default=None) or _job_output(store, stage)


def tail(file: Path, num_lines: int) -> list[str]:
    """The last lines of a file."""
    with open(file, "rb") as stream:
        stream.seek(_start_of_last(file, num_lines))
        return stream.read().decode("utf-8", "replace").splitlines()


def _start_of_last(file: Path, num_lines: int) -> int:
    """Where the last lines of a file begin, in bytes; reads no more than it must of a large file."""
    with open(file, "rb") as stream:
        end = position = stream.seek(0, os.SEEK_END)
        data = b""
        # The newline at the very end closes the last line and begins none.
        while position > 0 and data.count(b"\n", 0, -1) < num_lines:
            step = min(_BLOCK_BYTES, position)
            position -= step
            stream.seek(position)
            data = stream.read(step) + data
    start = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(num_lines):
        start = data.rfind(b"\n", 0, max(start, 0))
        if start < 0:
            return position
    return end - len(data) + start + 1 if num_lines else end


def _printed(store: Store, stage: StageRef, num_lines: int) -> _Printed:
    """What was printed; where that is nothing, what the stage has recorded, and why it failed or has not begun."""
    file = newest_log(store, stage)
    lines = [] if file is None else tail(file, num_lines)
    if any(line.strip() for line in lines) or num_lines == 0:
        return _Printed(lines, file)
    what = "has no log" if file is None else f"has printed nothing into {file}"
    recorded = [line_of(row) for row in store.read_metrics(stage.kind, stage.key)]
    failure = store.failure(stage.kind, stage.key)
    if failure is not None:
        recorded += failure["traceback"].splitlines()
        recorded += [failure["where"]] if failure["where"] else []
    note = f"{stage.kind} {stage.key} {what}; this is what it has recorded"
    if not recorded:
        note = f"{stage.kind} {stage.key} {what}, and has recorded nothing: {_why_nothing(store, stage)}"
    return _Printed(recorded[max(0, len(recorded) - num_lines) :], file, note)


def _why_nothing(store: Store, stage: StageRef) -> str:
    if store.is_done(stage.kind, stage.key):
        return "it is done, and had nothing to tell"
    for sweep in store.list_sweeps():
        if stage.key in store.read_plan(sweep).stages:
            (status,) = (one for one in view_sweep(store, sweep).status.stages if one.key == stage.key)
            waits = f", it waits for {status.waits}" if status.waits else ""
            return f"it is {status.state.value}{waits}"
    return "no sweep has it"


def _written_at(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _job_output(store: Store, stage: StageRef) -> Path | None:
    file = submission_log(store, stage.kind, stage.key)
    return file if file is not None and file.is_file() and file.stat().st_size else None


def _following(store: Store, stage: StageRef, num_lines: int) -> Iterator[str]:
    """The last lines, then each that is added, also by a later attempt of the stage, until it has ended."""
    file: Path | None = None
    position, rest = 0, b""
    while True:
        ended = _has_ended(store, stage)
        newest = newest_log(store, stage)
        if newest is not None and newest != file:
            position = _start_of_last(newest, num_lines) if file is None else 0
            if file is not None:
                print(f"spp: goes on in {visible(str(newest))}", file=sys.stderr)
            file, rest = newest, b""
        if file is not None:
            with open(file, "rb") as stream:
                stream.seek(position)
                added = stream.read()
            position += len(added)
            *lines, rest = (rest + added).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
        if ended:
            if rest:
                yield rest.decode("utf-8", "replace")
            return
        time.sleep(POLL_SECONDS)


def _has_ended(store: Store, stage: StageRef) -> bool:
    folder = store.stage_dir(stage.kind, stage.key)
    names = os.listdir(folder) if folder.is_dir() else []
    return DONE in names or FAILED in names
