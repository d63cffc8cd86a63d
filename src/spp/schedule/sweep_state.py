"""Where a sweep on SLURM stands: what is done, what jobs are doing, what is missing."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.schedule.batch_records import Task, newest_tasks, read_records, reconcile, submission_log_of, submitted_tasks
from spp.schedule.queue import Job, Unreachable, base, find_by_name, job_liveness, sacct, squeue
from spp.schedule.status import Live, LiveJob
from spp.store.claim import Holder, Liveness, holder_of
from spp.store.forms import is_job
from spp.store.leftovers import remove_leftovers
from spp.store.marker import DONE
from spp.store.store import FAILED, Store

SETTLING_SECONDS = 60.0
"""How long a marker may take to show on a network file system after its job has ended."""

NUM_THREADS = 16
LAST_LINES = 4
LOG_TAIL_BYTES = 2000


@dataclass(frozen=True)
class SweepState:
    """`live` maps the stages that jobs are doing or will do to these; `stale` are jobs of this sweep that wait for
    what will never come. `tasks` are the last submissions of the stages that are not done, `queue` what squeue
    says about them; `failed` are those with a FAILED marker."""

    done: frozenset[str]
    live: Mapping[str, str]
    stale: tuple[str, ...]
    tasks: Mapping[str, Task]
    queue: Mapping[str, Job]
    failed: frozenset[str]

    def is_missing(self, key: str) -> bool:
        """Whether nobody does or has done the stage."""
        return key not in self.done and key not in self.live

    def job_of(self, key: str) -> Job | None:
        """What the queue says about the last submission of a stage."""
        task = self.tasks.get(key)
        return None if task is None else in_queue(self.queue, task)


def read_sweep_state(store: Store, plan: Plan, sweep: str) -> SweepState:
    """The state of a sweep, for whoever holds `submitting`.

    Raises queue.Unreachable if the controller gives no answer.
    """
    reconcile(store, sweep)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        stages = list(plan.stages.values())
        names = dict(
            zip(plan.stages, pool.map(lambda stage: store.stage_files(stage.kind, stage.key), stages), strict=True)
        )
        done = frozenset(pool.map(lambda stage: _done_key(store, stage, names[stage.key]), stages)) - {""}
    open_stages = [stage for stage in stages if stage.key not in done]
    tasks = _last_tasks(store, sweep, [s for s in open_stages if "submitted.json" in names[s.key]])
    holders = _holder_jobs(store, open_stages, names)
    queue = squeue([*(task.job for task in tasks.values() if task.job), *holders.values()])
    live: dict[str, str] = {}
    stale: list[str] = []
    for stage in open_stages:
        key, task = stage.key, tasks.get(stage.key)
        job = in_queue(queue, task) if task else None
        holder = queue.get(holders.get(key, ""))
        if task and job and job.phase != "ended":
            if _will_run(plan, key, job, task, done, live, tasks):
                live[key] = job.job
                continue
            if task.record.sweep == sweep:
                stale.append(job.job)
        if holder is not None and holder.phase == "running":
            live[key] = holder.job
    failed = frozenset(stage.key for stage in open_stages if FAILED in names[stage.key])
    return SweepState(done, live, tuple(stale), tasks, queue, failed)


def live_of(store: Store, sweep: str) -> Live:
    """What SLURM says about the stages of a sweep; empty if it was never submitted there.

    Where the controller gives no answer nothing is claimed to be gone; `Live.note` tells.
    """
    records = read_records(store, sweep)
    awaited = [(kind, key) for kind, key, *_ in awaited_jobs(store, sweep).values()]
    return _live(store, {**newest_tasks(records), **submitted_tasks(store, awaited, records)})


def live_of_stages(store: Store, stages: Iterable[Stage]) -> Live:
    """The same for stages, whatever sweep has submitted them."""
    return _live(store, submitted_tasks(store, [(stage.kind, stage.key) for stage in stages]))


def _live(store: Store, tasks: dict[str, Task]) -> Live:
    if not tasks:
        return Live({})
    try:
        tasks = _with_late_ids(tasks)
        queue = squeue((task.job for task in tasks.values() if task.job), patience_seconds=3.0)
    except Unreachable as problem:
        return Live({}, note=str(problem))
    jobs: dict[str, LiveJob] = {}
    ended: dict[str, Task] = {}
    for key, task in tasks.items():
        job = in_queue(queue, task)
        if task.job is None:
            jobs[key] = LiveJob("", "pending", "it is being submitted")
        elif job is None or job.phase == "ended":
            ended[key] = task
        elif job.is_hopeless:
            jobs[key] = LiveJob(job.job, "gone", job.reason)
        else:
            jobs[key] = LiveJob(job.job, job.phase, job.reason if job.phase == "pending" else "")
    jobs.update(_ended_jobs(store, ended, queue))
    return Live(jobs, _alive(queue))


def _with_late_ids(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks, where whoever submitted was killed before the id was written down: with that, or left out."""
    late = {task.record.name: task.record for task in tasks.values() if task.job is None}
    late = {name: record for name, record in late.items() if time.time() - record.time > SETTLING_SECONDS}
    since = min((record.time for record in late.values()), default=0.0)
    found: dict[str, str] = {}
    for cluster in {record.cluster for record in late.values()}:
        names = {name for name, record in late.items() if record.cluster == cluster}
        found |= find_by_name(names, since, 3.0, cluster)
    return {
        key: replace(task, record=replace(task.record, job=found.get(task.record.name, task.record.job)))
        for key, task in tasks.items()
        if task.record.name not in late or task.record.name in found
    }


def in_queue(queue: Mapping[str, Job], task: Task) -> Job | None:
    """The job of a submission; an id that was given again to another job does not count."""
    # Of an array whose waiting tasks were cancelled one by one the queue remembers nothing but the whole.
    job = queue.get(task.job or "") or queue.get(task.record.job or "")
    return job if job is not None and job.name == task.record.name else None


def awaited_jobs(store: Store, sweep: str) -> dict[str, tuple[str, str, str, str]]:
    """Stages that jobs of other sweeps do for this one: key -> (kind, key, job, name of the job)."""
    awaited: dict[str, tuple[str, str, str, str]] = {}
    for row in store.read_jobs(sweep):
        if "cancelled" in row:
            awaited = {}
        awaits = row.get("awaits")
        for entry in awaits if isinstance(awaits, list) else []:
            if isinstance(entry, list) and len(entry) == 4 and is_job(entry[2]):
                kind, key, job, name = entry
                awaited[key] = (kind, key, job, name)
    return awaited


def _done_key(store: Store, stage: Stage, names: list[str]) -> str:
    """The key of a stage that is done, which is also tidied up; "" of another."""
    if DONE not in names or not store.is_done(stage.kind, stage.key):
        return ""
    remove_leftovers(store, stage.kind, stage.key, names)
    return stage.key


def _last_tasks(store: Store, sweep: str, stages: list[Stage]) -> dict[str, Task]:
    """The last submission of each stage, by this sweep or another; batches without an id are looked for."""
    refs = [(stage.kind, stage.key) for stage in stages]
    tasks = submitted_tasks(store, refs, read_records(store, sweep))
    others = {task.record.sweep for task in tasks.values() if task.job is None}
    if others:
        for other in others:
            reconcile(store, other)
        tasks = submitted_tasks(store, refs)
    return tasks


def _holder_jobs(store: Store, stages: list[Stage], names: Mapping[str, list[str]]) -> dict[str, str]:
    """The SLURM jobs that hold the claims of stages."""
    jobs = {}
    for stage in stages:
        if any(name.startswith("claim-") for name in names[stage.key]):
            holder, _ = holder_of(store.stage_dir(stage.kind, stage.key), names[stage.key])
            if holder is not None and holder.job:
                jobs[stage.key] = holder.job
    return jobs


def _will_run(
    plan: Plan,
    key: str,
    job: Job,
    task: Task,
    done: frozenset[str],
    live: Mapping[str, str],
    tasks: Mapping[str, Task],
) -> bool:
    """Whether a job in the queue will do its stage, given what is known about the stage's inputs."""
    if job.is_hopeless:
        return False
    if job.phase == "running":
        return True
    # A parent that was submitted again later is not the one that this job waits for.
    return all(
        parent in done or (parent in live and (parent not in tasks or tasks[parent].record.time <= task.record.time))
        for parent in plan.parents(key)
    )


def _ended_jobs(store: Store, ended: Mapping[str, Task], queue: Mapping[str, Job]) -> dict[str, LiveJob]:
    """What to say about jobs that are over, of the stages that are not done."""

    def is_open(item: tuple[str, Task]) -> bool:
        kind, key = item[1].record.tasks[item[1].index]
        return not store.is_done(kind, key)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        items = list(ended.items())
        still_open = dict(item for item, is_it in zip(items, pool.map(is_open, items), strict=True) if is_it)
    unknown = [task.job for task in still_open.values() if task.job and in_queue(queue, task) is None]
    accounted = sacct(unknown) or {}
    jobs = {}
    for key, task in still_open.items():
        assert task.job is not None
        job, row = in_queue(queue, task), accounted.get(task.job)
        word = job.state if job else row.state if row and row.name == task.record.name else ""
        if (job and word == "COMPLETED") or (not word and _has_just_started(store, task)):
            jobs[key] = LiveJob(task.job, "running", "it has ended; its marker is awaited")
        else:
            last_words = _last_words(store, task)
            jobs[key] = LiveJob(task.job, "gone", "\n".join([*last_words, word or "it is not in the queue any more"]))
    return jobs


def _has_just_started(store: Store, task: Task) -> bool:
    """Whether a job began to print so lately that its marker may be on its way."""
    try:
        return time.time() - submission_log_of(store, task).stat().st_mtime < SETTLING_SECONDS
    except FileNotFoundError:
        return False


def _last_words(store: Store, task: Task) -> list[str]:
    """What a job printed before the log of its stage was open."""
    try:
        tail = submission_log_of(store, task).read_bytes()[-LOG_TAIL_BYTES:]
    except FileNotFoundError:
        return []
    return tail.decode("utf-8", "replace").splitlines()[-LAST_LINES:]


def _alive(queue: Mapping[str, Job]) -> Liveness:
    """Liveness by what was already asked, and by a question of its own for the jobs of others."""
    ask = job_liveness()
    bases = {base(job) for job in queue}

    def alive(holder: Holder) -> bool | None:
        if base(holder.job) not in bases:
            return ask(holder)
        job = queue.get(holder.job)
        return job is not None and job.phase != "ended" and not job.is_hopeless

    return alive
