"""spp sync: upload the W&B runs that stages have kept offline."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from enum import Enum
from pathlib import Path

from spp.cli.sweeps import find_sweep
from spp.cli.table import count, human_time
from spp.record.wandb_account import account_problem
from spp.record.wandb_file import OFFLINE, find_segments, is_finished, read_file
from spp.store.claim import holder_of
from spp.store.store import Store
from spp.text import visible

BATCH_SIZE = 10
"""Runs per call of wandb sync: it needs seconds to begin, and says nothing that could be counted."""

NUM_PARALLEL = 4
"""Calls of wandb sync at a time: each mostly waits for the server."""

QUIET_SECONDS = 60.0
"""How long a run that was not closed must have stood still to count as given up."""


class State(Enum):
    """What may be done with a run that was not uploaded."""

    READY = "ready"
    GROWING = "growing"
    DAMAGED = "damaged"


def sync(root: Path, sweep: str | None, *, as_json: bool) -> int:
    """Upload what was not uploaded before, of all stages or of a sweep; exit code 1 if that did not go well.

    With `as_json` only the result goes to stdout; how far it is, is for the eyes.
    """
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        code, numbers = _sync(root, sweep)
    if as_json:
        print(json.dumps({"ok": code == 0, **numbers}, indent=1))
    return code


def _sync(root: Path, sweep: str | None) -> tuple[int, dict[str, int]]:
    """The exit code, and how many runs were found by state and uploaded."""
    by_state: dict[State, list[Path]] = {state: [] for state in State}
    for folder in _not_uploaded(root, sweep):
        by_state[_state(folder)].append(folder)
    ready, growing, damaged = (by_state[state] for state in State)
    if growing:
        print(f"{count(len(growing), 'run')} of stages at work: left for the next time")
    for folder in damaged:
        print(f"spp: {visible(str(folder))} is damaged; remove it, the store has the whole record", file=sys.stderr)
    numbers = {"num_ready": len(ready), "num_growing": len(growing), "num_damaged": len(damaged), "num_uploaded": 0}
    if not ready:
        print("nothing to upload")
        return 1 if damaged else 0, numbers
    if problem := account_problem():
        print(f"spp: {visible(problem)}", file=sys.stderr)
        return 1, numbers
    answer = _upload_all(list(_batches(ready)), len(ready))
    numbers["num_uploaded"] = sum(map(_is_synced, ready))
    if answer is not None:
        print(f"spp: wandb sync did not upload the others ({visible(answer)}); say it again to go on", file=sys.stderr)
    return 1 if damaged or answer is not None else 0, numbers


def _upload_all(batches: Sequence[Sequence[Path]], num_runs: int) -> str | None:
    """Upload several batches at a time; what wandb sync said about one that it did not upload, after which no further
    one is begun."""
    began, num_done = time.monotonic(), 0
    with ThreadPoolExecutor(NUM_PARALLEL) as pool:
        waiting = {pool.submit(_upload, batch): batch for batch in batches}
        for ended in as_completed(list(waiting)):
            batch = waiting[ended]
            num_done += sum(map(_is_synced, batch))
            has_failed = not all(map(_is_synced, batch))
            left = (time.monotonic() - began) / max(1, num_done) * (num_runs - num_done)
            to_go = f", about {human_time(left)} to go" if num_done < num_runs and not has_failed else ""
            print(f"uploaded {num_done} of {count(num_runs, 'run')}{to_go}", flush=True)
            if has_failed:
                pool.shutdown(cancel_futures=True)
                return ended.result()
    return None


def _not_uploaded(root: Path, sweep: str | None) -> list[Path]:
    """The folders of offline runs in the order of their start."""
    if sweep is None:
        found = find_segments(root / "stages")
    else:
        store = Store(root)
        stages = store.read_plan(find_sweep(root, sweep)).stages.values()
        found = [run for stage in stages for run in find_segments(store.stage_dir(stage.kind, stage.key) / "wandb")]
    return [folder for folder in found if folder.name.startswith(OFFLINE) and not _is_synced(folder)]


def _state(folder: Path) -> State:
    """Whether a run's folder can be uploaded; the torn end that a killed process has left is cut off for it."""
    stage = folder.parent.parent
    if holder_of(stage, os.listdir(stage))[1]:
        return State.GROWING
    try:
        (file,) = folder.glob("run-*.wandb")
        content = read_file(file)
    except ValueError:
        return State.DAMAGED
    if content.is_damaged or not content.records:
        return State.DAMAGED
    if not is_finished(content):
        # W&B's own process may write for a moment after the stage's has ended.
        if time.time() - file.stat().st_mtime < QUIET_SECONDS:
            return State.GROWING
        os.truncate(file, content.num_bytes)
    return State.READY


def _is_synced(folder: Path) -> bool:
    """Whether wandb sync has left its marker."""
    return any(folder.glob("run-*.wandb.synced"))


def _batches(segments: Sequence[Path]) -> Iterator[list[Path]]:
    """Runs with all their segments together, as only one call of wandb sync joins them in their order."""
    by_stage: dict[Path, list[Path]] = {}
    for folder in segments:
        by_stage.setdefault(folder.parent.parent, []).append(folder)
    stages = list(by_stage.values())
    for first in range(0, len(stages), BATCH_SIZE):
        yield [folder for stage in stages[first : first + BATCH_SIZE] for folder in stage]


def _upload(folders: Sequence[Path]) -> str:
    """Let wandb sync upload; the last line that it printed."""
    # Whoever keeps his runs offline by WANDB_MODE wants them uploaded now; wandb's own log goes where nobody looks.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *(str(folder.absolute()) for folder in folders)],
            env={**environment, "WANDB_DIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
