"""spp logs: what the workers of a stage have printed."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from spp.cli.stage_names import find_stage
from spp.plan.spec import StageRef
from spp.schedule.batch_records import submission_log
from spp.store.marker import DONE
from spp.store.store import FAILED, Store
from spp.text import visible

POLL_SECONDS = 0.5
_BLOCK_BYTES = 1 << 16
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def logs(root: Path, prefix: str, *, num_lines: int, follow: bool, as_json: bool) -> int:
    """Print the end of a stage's newest log; with `follow` go on until the stage ends, exit code 1 if it failed.

    Raises:
        ValueError: if no stage, or more than one, begins with `prefix`, or if nothing was ever printed.
    """
    store = Store(root)
    stage = find_stage(store, prefix)
    if follow:
        for line in _following(store, stage, num_lines):
            row = {"stage": stage.kind, "key": stage.key, "line": line}
            print(json.dumps(row) if as_json else _harmless(line), flush=True)
        return 0 if store.is_done(stage.kind, stage.key) else 1
    file, lines = _printed(store, stage, num_lines)
    if as_json:
        print(json.dumps({"stage": stage.kind, "key": stage.key, "file": str(file), "lines": lines}, indent=1))
    else:
        print("\n".join(map(_harmless, lines)))
    return 0


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


def _printed(store: Store, stage: StageRef, num_lines: int) -> tuple[Path, list[str]]:
    file = newest_log(store, stage)
    if file is not None:
        return file, tail(file, num_lines)
    failure = store.failure(stage.kind, stage.key)
    if failure is not None:
        lines = failure["traceback"].splitlines()
        return store.stage_dir(stage.kind, stage.key) / FAILED, lines[max(0, len(lines) - num_lines) :]
    raise ValueError(
        f"STAGE: {stage.kind} {stage.key} has no log; allowed: a stage whose worker has started; one in the process of "
        "`spp run` (cluster=debug) prints to its terminal; see spp status"
    )


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
    names = os.listdir(store.stage_dir(stage.kind, stage.key))
    return DONE in names or FAILED in names
