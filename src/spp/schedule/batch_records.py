"""What a sweep has submitted: its batches, and which job each stage was given to.

Before sbatch a batch is written down (jobs/<batch>.json) and announced in jobs.jsonl, after it the job's id is
added. So whatever happens in between, either the id is known or there is a job name by which to look for it.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.schedule.queue import find_by_name, number, task_of
from spp.store.claim import lock
from spp.store.forms import check_address, is_job
from spp.store.store import Store

SUBMITTING = "submitting"
"""Folder of the lock of whoever submits."""

SETTLE_SECONDS = 10.0
"""How long an sbatch whose caller was killed may still take to reach the queue."""


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was announced; `job` is the id of the job or array, None as long as it is not known.

    `tasks` maps index -> (kind, key), `resources` is what each task asked for (ResourcesConfig.plain), `attempts`
    how often each key was submitted again before because of the machine; `time` is in seconds since 1970.
    """

    sweep: str
    batch: str
    name: str
    time: float
    job: str | None
    tasks: Mapping[int, tuple[str, str]]
    resources: Mapping[str, Any]
    attempts: Mapping[str, int]
    cluster: str = ""
    """Name of the SLURM cluster, where it is not that of the submitting machine."""

    def job_of(self, index: int) -> str | None:
        """Id of the task with this index."""
        return self.job if self.job is None or len(self.tasks) == 1 else task_of(self.job, index)


@dataclass(frozen=True)
class Task:
    """A stage as it was submitted."""

    record: BatchRecord
    index: int

    @property
    def job(self) -> str | None:
        return self.record.job_of(self.index)


def submitting(store: Store) -> AbstractContextManager[None]:
    """Context in which nobody else submits from this store; waits for who does."""
    return lock(store.root / SUBMITTING)


def job_name(sweep: str, batch: str) -> str:
    """Name of the job of a batch, unlike that of any other."""
    return f"spp-{sweep}-{batch}"


def jobs_folder(store: Store, sweep: str, batch: str) -> Path:
    """Where submitit keeps its pickles and what the jobs of a batch print before the stage's own log is open."""
    return store.sweep_dir(sweep) / "jobs" / "slurm" / batch


def announce(store: Store, sweep: str, batch: str, content: Mapping[str, Any]) -> None:
    """Write down a batch that will be submitted now."""
    store.write_batch(sweep, batch, content)
    store.append_job(sweep, {"batch": batch, "name": job_name(sweep, batch), "time": content["time"]})


def settle(store: Store, sweep: str, batch: str, job: str | None) -> None:
    """Write down the id of an announced batch; None if it was not submitted after all."""
    store.append_job(sweep, {"batch": batch, "job": job, "time": time.time()})


def read_records(store: Store, sweep: str) -> list[BatchRecord]:
    """The batches of a sweep in the order of submission, without those that were never submitted."""
    announced: dict[str, dict[str, Any]] = {}
    for row in store.read_jobs(sweep):
        if isinstance(row.get("batch"), str):
            announced.setdefault(row["batch"], {}).update(row)
    records = []
    for batch, row in announced.items():
        if "job" in row and row["job"] is None:
            continue
        content = _checked(store.read_batch(sweep, batch), sweep, batch)
        job = row.get("job") if is_job(row.get("job")) else None
        records.append(BatchRecord(sweep, batch, job_name(sweep, batch), job=job, **content))
    return records


def _checked(content: Mapping[str, Any], sweep: str, batch: str) -> dict[str, Any]:
    """What was announced about a batch, as a BatchRecord holds it."""
    try:
        tasks = {int(index): (kind, key) for index, (kind, key) in content["tasks"].items()}
        for kind, key in tasks.values():
            check_address(kind, key)
        cluster = str(content.get("cluster") or "")
        resources, attempts, announced = content["resources"], content["attempts"], float(content["time"])
        is_whole = bool(tasks) and isinstance(resources, dict) and isinstance(attempts, dict)
    except (KeyError, TypeError, ValueError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"batch: {batch} of sweep {sweep} is damaged; allowed: what spp run wrote; remove the row that names it "
            "from the sweep's jobs.jsonl"
        )
    return {"tasks": tasks, "resources": resources, "attempts": attempts, "time": announced, "cluster": cluster}


def reconcile(store: Store, sweep: str) -> None:
    """Find out what became of the batches that were announced and of which no id is known.

    To be called by whoever holds `submitting`. Raises queue.Unreachable if the controller gives no answer.
    """
    open_records = {record.name: record for record in read_records(store, sweep) if record.job is None}
    if not open_records:
        return
    oldest, newest = (choose(record.time for record in open_records.values()) for choose in (min, max))
    while True:
        found: dict[str, str] = {}
        for cluster in {record.cluster for record in open_records.values()}:
            names = {name for name, record in open_records.items() if record.cluster == cluster}
            found |= find_by_name(names, since=oldest, cluster=cluster)
        # The caller of an sbatch may be dead while the sbatch itself is still on its way.
        if len(found) == len(open_records) or time.time() - newest > SETTLE_SECONDS:
            break
        time.sleep(0.5)
    for name, record in open_records.items():
        settle(store, sweep, record.batch, found.get(name))


def newest_tasks(records: Iterable[BatchRecord]) -> dict[str, Task]:
    """The last submission of every stage, by key."""
    return {key: Task(record, index) for record in records for index, (_, key) in record.tasks.items()}


def submitted_tasks(
    store: Store, refs: Iterable[tuple[str, str]], known: Iterable[BatchRecord] = ()
) -> dict[str, Task]:
    """The last submission of these stages (kind, key), by whatever sweep; `known` are records already read."""
    by_sweep: dict[str, dict[str, BatchRecord]] = {}
    for record in known:
        by_sweep.setdefault(record.sweep, {})[record.batch] = record
    tasks = {}
    for kind, key in refs:
        note = store.submitted(kind, key)
        if note is None:
            continue
        sweep = note["sweep"]
        # The note outlives its sweep, which may have been removed.
        if sweep not in by_sweep:
            by_sweep[sweep] = {record.batch: record for record in read_records(store, sweep)}
        note_record = by_sweep[sweep].get(note["batch"])
        if note_record is not None:
            tasks[key] = Task(note_record, note["index"])
    return tasks


def submission_log_of(store: Store, task: Task) -> Path:
    """What a job printed to stderr before the log of its stage was open, once it has an id."""
    return jobs_folder(store, task.record.sweep, task.record.batch) / f"{number(task.job or '')}_0_log.err"


def submission_log(store: Store, kind: str, key: str) -> Path | None:
    """`submission_log_of` the last submission of a stage; None if it was not submitted."""
    task = submitted_tasks(store, [(kind, key)]).get(key)
    return None if task is None or task.job is None else submission_log_of(store, task)
