"""The store: one folder per stage, one per sweep, and the markers that say what is finished.

    stages/<kind>/<key>/         spec.json provenance.json metrics.jsonl progress.json summary.json
                                 artifacts/ logs/ submitted.json last.ckpt partial/ DONE|FAILED
    stages/<kind>/recent.jsonl   what the last finished stages cost: for estimates, nothing depends on it
    sweeps/<sweep>/              points.json plan.json jobs.jsonl jobs/

A worker writes its artifacts into a private folder. `finish` adds a record of them and renames the folder to
`artifacts`: this rename decides which of two copies of a stage counts. What follows it (summary.json, DONE)
repeats that record, so it comes out the same whoever writes it, and where a worker died in between the next
one makes up for it.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spp.plan.spec import Stage, StageRef
from spp.process import this_process
from spp.store.atomic import (
    append_line,
    json_line,
    missing,
    read_json,
    read_lines,
    require_json,
    write_json,
    write_text,
)
from spp.store.forms import (
    KEY,
    check_address,
    check_kind,
    check_spec,
    fields_or_none,
    is_manifest,
    is_number,
)
from spp.store.manifest import RECORD, differences, let_umask_decide, manifest_of
from spp.store.marker import (
    ARTIFACTS,
    DONE,
    SUMMARY,
    all_damage,
    damage,
    marker_of,
    read_marker,
    read_summary,
    set_aside,
)
from spp.store.own_line import own_line
from spp.store.sweeps import Sweeps
from spp.temporary import remove, remove_abandoned, scan, temporary

FAILED = "FAILED"
CHECKPOINT = "last.ckpt"
PARTIAL = "partial"
"""Artifacts that belong to the checkpoint."""

NOT_BESIDE_DONE = (FAILED, "progress.json", CHECKPOINT, PARTIAL)
"""What a stage that is done needs no more."""

_FORGET_WORK_SECONDS = 7 * 24 * 3600.0
_TRACEBACK_LINES = 40


@dataclass(frozen=True)
class Progress:
    """How far a running stage is: `done` of `total` `unit`s; `time` is in seconds since 1970."""

    done: float
    total: float
    unit: str
    message: str
    time: float


class Store(Sweeps):
    """A store at `root`; nothing is made before something is written."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self._work: dict[StageRef, Path] = {}

    # Stages: what shall be done, and whether it is

    def stage_dir(self, kind: str, key: str) -> Path:
        """The folder of a stage, whether it exists or not.

        Raises ValueError for what cannot be the kind or the key of a stage: it may come from any file.
        """
        check_address(kind, key)
        return Path(self.root, "stages", kind, key)

    def stage_files(self, kind: str, key: str) -> list[str]:
        """Names of what is in the folder of a stage; nothing if it is not there."""
        try:
            return os.listdir(self.stage_dir(kind, key))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def artifacts_dir(self, kind: str, key: str) -> Path:
        """The finished artifacts of a stage."""
        return self.stage_dir(kind, key) / ARTIFACTS

    def logs_dir(self, kind: str, key: str) -> Path:
        """Where the output of a stage's workers goes."""
        return self.stage_dir(kind, key) / "logs"

    def put_spec(self, stage: Stage, *, durable: bool = True) -> None:
        """Write down a stage so that a worker can do it; a finished one is left as it is.

        Without `durable` it is not forced to the disk, for callers that write thousands.
        """
        folder = self.stage_dir(stage.kind, stage.key)
        spec = stage.to_json()
        if not (folder / DONE).exists() and read_json(folder / "spec.json") != spec:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "spec.json", spec, durable=durable)

    def spec(self, kind: str, key: str) -> dict[str, Any]:
        """The spec of a stage (`Stage.to_json`), which is what its key says.

        Raises FileNotFoundError if it was never put, and ValueError, in one line, if it is another stage's.
        """
        spec = require_json(self.stage_dir(kind, key) / "spec.json")
        check_spec(spec, kind, key)
        return spec

    def find_stages(self, prefix: str) -> list[StageRef]:
        """The stages whose key starts with `prefix`."""
        kinds = sorted(entry.name for entry in scan(self.root / "stages"))
        return [
            StageRef(kind, entry.name)
            for kind in kinds
            for entry in sorted(scan(self.root / "stages" / kind), key=lambda entry: entry.name)
            if entry.name.startswith(prefix) and KEY.fullmatch(entry.name)
        ]

    def is_done(self, kind: str, key: str) -> bool:
        """Whether a stage is finished: it has a whole DONE marker and artifacts of the sizes that stand in it."""
        folder = self.stage_dir(kind, key)
        return os.path.exists(os.path.join(folder, DONE)) and damage(folder) is None

    def damage(self, kind: str, key: str) -> str | None:
        """What is wrong with a stage that has a DONE marker but does not count as done; None where nothing is."""
        folder = self.stage_dir(kind, key)
        return damage(folder) if os.path.exists(os.path.join(folder, DONE)) else None

    def done(self, kind: str, key: str) -> dict[str, Any]:
        """The DONE marker: artifacts (name -> size, sha256), finished_at, seconds, code_hash, summary_sha256.

        Raises FileNotFoundError if the stage is not done.
        """
        marker = read_marker(self.stage_dir(kind, key))
        if marker is None:
            raise missing(self.stage_dir(kind, key) / DONE)
        return marker

    def failure(self, kind: str, key: str) -> dict[str, Any] | None:
        """The FAILED marker, if any: error (one line), traceback (its last lines), where (the line of
        the user's own code, or empty), time, host, pid."""
        path = self.stage_dir(kind, key) / FAILED
        if not path.exists():
            return None
        told = read_json(path) or {"error": "its FAILED marker is not whole"}
        texts = {name: str(told.get(name, "")) for name in ("error", "traceback", "time", "host")}
        texts["where"] = str(told.get("where") or "")
        return {**told, **texts, "traceback": texts["traceback"] or texts["error"]}

    def summary(self, kind: str, key: str) -> dict[str, Any]:
        """The summary of a finished stage. Raises FileNotFoundError if there is none, ValueError if it is damaged."""
        folder = self.stage_dir(kind, key)
        summary = read_summary(folder)
        if summary is None:
            raise missing(folder / SUMMARY)
        return summary

    def verify(self, kind: str, key: str) -> list[str]:
        """What is wrong with a stage, one line each: size and sha256 of every artifact against DONE, and its summary.

        Reads all of its artifacts.
        """
        folder = self.stage_dir(kind, key)
        if not (folder / DONE).exists():
            return [f"{kind} {key}: it is not done"]
        problems = all_damage(folder)
        try:
            read_summary(folder)
        except ValueError:
            problems.append("its summary.json is damaged")
        return [f"{kind} {key}: {problem}" for problem in problems]

    # Stages: the work

    def begin(self, kind: str, key: str) -> Path | None:
        """Start the work on a claimed stage: a fresh private folder for its artifacts.

        None if there is nothing left to do: another worker has finished it, or had all but written DONE.
        Removes the FAILED marker of an earlier try and the private folders that dead workers left behind. What was
        finished and is damaged is set aside, and made again.
        """
        folder = self.stage_dir(kind, key)
        if os.path.lexists(folder / DONE):
            problem = damage(folder)
            if problem is None:
                remove_abandoned(folder, after_seconds=0.0)
                return None
            set_aside(folder, problem)
        if (folder / ARTIFACTS).exists():
            record = _read_record(folder)
            if record is not None and not differences(folder / ARTIFACTS, record["artifacts"]):
                _publish(folder, record)
                remove_abandoned(folder, after_seconds=0.0)
                return None
            set_aside(folder, "its artifacts are not whole")
        folder.mkdir(parents=True, exist_ok=True)
        self.clear_failed(kind, key)
        remove_abandoned(folder, after_seconds=_FORGET_WORK_SECONDS)
        work = temporary(folder)
        work.mkdir()
        self._work[StageRef(kind, key)] = work
        return work

    def finish(self, kind: str, key: str, summary: Mapping[str, Any]) -> None:
        """Publish what the worker has put into the folder that `begin` returned; DONE is written last.

        If another copy of the stage was first, its artifacts and its summary stay and these are dropped.
        Raises TypeError, before anything changes, if JSON cannot hold the summary; KeyError without `begin`.
        """
        folder = self.stage_dir(kind, key)
        work = self._work[StageRef(kind, key)]
        provenance = read_json(folder / "provenance.json") or {}
        record = {
            "artifacts": manifest_of(work),
            "finished_at": utc_now(),
            "seconds": summary.get("seconds"),
            "code_hash": provenance.get("code_hash"),
            "summary": dict(summary),
        }
        write_json(work / RECORD, record)
        let_umask_decide(work, work / RECORD)
        del self._work[StageRef(kind, key)]
        try:
            work.rename(folder / ARTIFACTS)
        except OSError:
            # The record makes sure that no artifacts folder is empty, so this rename never replaces one.
            first = _read_record(folder)
            if first is None:
                raise
            shutil.rmtree(work, ignore_errors=True)
            _publish(folder, first)
            return
        _publish(folder, record)
        cost = {"key": key, "seconds": summary.get("seconds"), "gpu_seconds": summary.get("gpu_seconds")}
        # The stage is done, whether or not this can be written.
        with contextlib.suppress(OSError):
            append_line(folder.parent / "recent.jsonl", cost)

    def fail(self, kind: str, key: str, text: str) -> None:
        """Write the FAILED marker, but not over DONE; `text` is a traceback, its last line the error."""
        folder = self.stage_dir(kind, key)
        if (folder / DONE).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line for line in text.splitlines() if line.strip()] or ["unknown error"]
        me = this_process()
        marker = {
            "error": lines[-1].strip(),
            "traceback": "\n".join(lines[-_TRACEBACK_LINES:]),
            "where": own_line(text),
            "time": utc_now(),
            "host": me.host,
            "pid": me.pid,
        }
        write_json(folder / FAILED, marker)

    def clear_failed(self, kind: str, key: str) -> None:
        """Forget an earlier failure and its progress."""
        folder = self.stage_dir(kind, key)
        remove(folder / FAILED)
        remove(folder / "progress.json")

    def recent_costs(self, kind: str, last: int) -> list[dict[str, Any]]:
        """key, seconds and gpu_seconds of the stages of a kind that were finished last, newest last."""
        check_kind(kind)
        rows = read_lines(self.root / "stages" / kind / "recent.jsonl", last)
        return [{name: value for name, value in row.items() if name == "key" or is_number(value)} for row in rows]

    # Stages: records

    def write_submitted(self, kind: str, key: str, row: Mapping[str, Any]) -> None:
        """Note which sweep's batch a stage was given to last: sweep, batch, index."""
        folder = self.stage_dir(kind, key)
        folder.mkdir(parents=True, exist_ok=True)
        # Not forced to the disk: there are thousands, and the sweep knows it as well.
        write_json(folder / "submitted.json", dict(row), durable=False)

    def submitted(self, kind: str, key: str) -> dict[str, Any] | None:
        """What `write_submitted` wrote last, if anything that is whole."""
        note = read_json(self.stage_dir(kind, key) / "submitted.json")
        return fields_or_none(note, {"sweep": str, "batch": str, "index": int})

    def write_provenance(self, kind: str, key: str, provenance: Mapping[str, Any]) -> None:
        """Write down what runs here (`provenance.collect`); before `finish`, which copies the code hash."""
        write_json(self.stage_dir(kind, key) / "provenance.json", dict(provenance))

    def provenance(self, kind: str, key: str) -> dict[str, Any]:
        """What ran. Raises FileNotFoundError if the stage never started."""
        return require_json(self.stage_dir(kind, key) / "provenance.json")

    def append_metrics(self, kind: str, key: str, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        append_line(self.stage_dir(kind, key) / "metrics.jsonl", row)

    def read_metrics(self, kind: str, key: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl in the order of writing; a line torn by a crash is left out."""
        return read_lines(self.stage_dir(kind, key) / "metrics.jsonl")

    def write_metrics(self, kind: str, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace metrics.jsonl: a stage that goes on from a checkpoint has the rows of that moment."""
        path = self.stage_dir(kind, key) / "metrics.jsonl"
        write_text(path, "".join(json_line(row, path) for row in rows))

    def write_progress(self, kind: str, key: str, *, done: float, total: float, unit: str, message: str = "") -> None:
        """Tell how far a running stage is."""
        progress = {"done": done, "total": total, "unit": unit, "message": message, "time": time.time()}
        # Not forced to the disk: it is written twice a second, and means nothing after a crash.
        write_json(self.stage_dir(kind, key) / "progress.json", progress, durable=False)

    def read_progress(self, kind: str, key: str) -> Progress | None:
        told = read_json(self.stage_dir(kind, key) / "progress.json") or {}
        names = ("done", "total", "time")
        if not all(is_number(told.get(name)) for name in names):
            return None
        numbers = {name: told[name] for name in names}
        return Progress(**numbers, unit=str(told.get("unit", "")), message=str(told.get("message", "")))


def stage_of(artifact: Path) -> tuple[Store, StageRef] | None:
    """The stage that a file is an artifact of, and its store; None for a file that lies elsewhere."""
    folder = next((parent.parent for parent in artifact.absolute().parents if parent.name == ARTIFACTS), None)
    if folder is None or not (folder / "spec.json").exists():
        return None
    return Store(folder.parents[2]), StageRef(folder.parent.name, folder.name)


def utc_now() -> str:
    """The time as it stands in markers: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _publish(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / "summary.json", record["summary"])
    for name in NOT_BESIDE_DONE:
        remove(folder / name)
    write_json(folder / DONE, marker_of(record))


def _read_record(folder: Path) -> dict[str, Any] | None:
    """What `finish` wrote beside the artifacts; None if it is not there or not whole."""
    record = read_json(folder / ARTIFACTS / RECORD)
    return (
        record if is_manifest((record or {}).get("artifacts")) and fields_or_none(record, {"summary": dict}) else None
    )
