"""What a SLURM job runs: the stage that its batch has under the job's index."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.schedule.queue import job_liveness
from spp.store.claim import slurm_job
from spp.store.store import Store


@dataclass(frozen=True)
class StageJob:
    """A callable for submitit. All tasks of an array carry an equal one, so it does not matter which one they find.

    `root` is the store, `batch` one of the batches of the sweep.
    """

    root: str
    sweep: str
    batch: str

    def __call__(self) -> None:
        """Do the stage. Raises whatever the stage raises, so that SLURM sees a failed job."""
        store = Store(self.root)
        tasks = store.read_batch(self.sweep, self.batch)["tasks"]
        index = os.environ.get("SLURM_ARRAY_TASK_ID") if len(tasks) > 1 else next(iter(tasks))
        kind, key = tasks[str(index)]
        _log_to(store.logs_dir(kind, key))
        from spp.stages.log import write_log
        from spp.stages.worker import run_stage

        write_log()
        run_stage(store.root, kind, key, alive=job_liveness(patience_seconds=0.0), wait_for_holder=True)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again after a time limit or a preemption: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _log_to(folder: Path) -> None:
    """Send all that this process prints to a log of the stage."""
    job, restarts = slurm_job()
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-job{job}-r{restarts}{f'-rank{rank}' if rank else ''}.log"
    output = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
