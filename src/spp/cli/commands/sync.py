"""spp sync: upload the W&B runs that stages have kept offline."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

from spp.cli.sweeps import find_sweep
from spp.cli.table import count
from spp.record.wandb_account import account_problem
from spp.record.wandb_file import OFFLINE, find_segments, is_finished, read_file
from spp.store.claim import holder_of
from spp.store.store import Store
from spp.text import visible

BATCH_SIZE = 25
"""Runs per call of wandb sync: it needs seconds to begin, and says nothing that could be counted."""

QUIET_SECONDS = 60.0
"""How long a run that was not closed must have stood still to count as given up."""


class State(Enum):
    """What may be done with a run that was not uploaded."""

    READY = "ready"
    GROWING = "growing"
    DAMAGED = "damaged"


def sync(root: Path, sweep: str | None) -> int:
    """Upload what was not uploaded before, of all stages or of a sweep; exit code 1 if that did not go well."""
    by_state: dict[State, list[Path]] = {state: [] for state in State}
    for folder in _not_uploaded(root, sweep):
        by_state[_state(folder)].append(folder)
    ready, growing, damaged = (by_state[state] for state in State)
    if growing:
        print(f"{count(len(growing), 'run')} of stages at work: left for the next time")
    for folder in damaged:
        print(f"spp: {visible(str(folder))} is damaged; remove it, the store has the whole record", file=sys.stderr)
    if not ready:
        print("nothing to upload")
        return 1 if damaged else 0
    if problem := account_problem():
        print(f"spp: {visible(problem)}", file=sys.stderr)
        return 1
    num_done = 0
    for batch in _batches(ready):
        answer = _upload(batch)
        num_done += sum(map(_is_synced, batch))
        print(f"uploaded {num_done} of {count(len(ready), 'run')}", flush=True)
        if not all(map(_is_synced, batch)):
            print(
                f"spp: wandb sync did not upload the others ({visible(answer)}); say it again to go on", file=sys.stderr
            )
            return 1
    return 1 if damaged else 0


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
