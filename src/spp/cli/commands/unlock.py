"""spp unlock: free a stage whose worker is gone, without waiting until its claim is old."""

import json
from pathlib import Path

from spp.cli.stage_names import find_stage
from spp.schedule.batch_records import SUBMITTING
from spp.schedule.queue import job_liveness
from spp.store.claim import unlock as give_back
from spp.store.store import Store


def unlock(root: Path, name: str, *, as_json: bool) -> int:
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
    was_held_by = str(holder or "a process without a name")
    print(
        json.dumps({"freed": what, "held_by": was_held_by})
        if as_json
        else f"{what} is free; it was held by {was_held_by}"
    )
    return 0
