"""spp unlock: free a stage whose worker is gone, without waiting until its claim is old."""

from pathlib import Path

from spp.cli.stage_names import find_stage
from spp.schedule.batch_records import SUBMITTING
from spp.schedule.queue import job_liveness
from spp.store.claim import unlock as give_back
from spp.store.store import Store


def unlock(root: Path, name: str) -> int:
    """Give back the claim of a stage, or the lock of whoever submits; a holder that is known to live keeps it.

    Raises:
        ValueError: one line, if there is no such stage, nobody holds it, or its holder lives.
    """
    store = Store(root)
    if name == SUBMITTING:
        folder, what = root / SUBMITTING, "submitting"
    else:
        stage = find_stage(store, name)
        folder, what = store.stage_dir(stage.kind, stage.key), f"{stage.kind} {stage.key}"
    holder = give_back(folder, job_liveness())
    print(f"{what} is free; it was held by {holder or 'a process without a name'}")
    return 0
