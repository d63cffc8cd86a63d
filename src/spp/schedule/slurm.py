"""`cluster=slurm`: everything is submitted at once, and nothing stays behind on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan
from spp.schedule.batch_records import newest_tasks, read_records, reconcile, submission_log, submitting
from spp.schedule.events import Observe
from spp.schedule.queue import Unreachable, scancel, squeue
from spp.schedule.retry import requests_for_retry
from spp.schedule.sbatch import require_commands
from spp.schedule.status import was_cancelled
from spp.schedule.submitter import JobFactory, JobRequest, Submission, Submitter, waiting_tenders
from spp.schedule.sweep_state import awaited_jobs, in_queue, live_of, read_sweep_state
from spp.store.store import Store, utc_now

__all__ = ["Cancelled", "JobFactory", "Submission", "cancel", "live_of", "retry", "submission_log", "submit"]


@dataclass(frozen=True)
class Cancelled:
    """Ids of the jobs that were ended, and of those that go on: another sweep has submitted them, or needs them."""

    ended: tuple[str, ...]
    kept: tuple[str, ...]


def submit(
    plan: Plan,
    store: Store,
    sweep: str,
    cluster: ClusterConfig,
    *,
    job: JobFactory,
    code: Path | None,
    trusted: str = "user",
    observe: Observe | None = None,
) -> Submission:
    """Submit what is missing of a sweep that was written down, and return; the same call goes on after a crash.

    Done stages are not submitted, and those that jobs of this or another sweep do are waited for. What has failed
    is tried again. `code` is a folder for PYTHONPATH, so that the jobs run the code as it is now.

    Raises ValueError, in one line, where SLURM is missing, refuses or does not answer; what was submitted stays.
    """
    require_commands()
    submitter = Submitter(plan, store, sweep, cluster, job, code, observe or (lambda event: None), trusted)
    with submitting(store), _one_line():
        state = read_sweep_state(store, plan, sweep)
        requests = {key: JobRequest(stage.resources) for key, stage in plan.stages.items() if state.is_missing(key)}
        return submitter.send(state, requests)


def retry(
    store: Store,
    sweep: str,
    *,
    job: JobFactory,
    code: Path | None,
    trusted: str = "user",
    automatic: bool = False,
    observe: Observe | None = None,
) -> Submission:
    """Submit again what is missing of a sweep: with more memory after running out of it, more time after a time
    limit, and later after a fault of the machine. What is healthy goes on.

    `automatic` leaves what raised an exception, what somebody cancelled, and what was tried `num_retries` times;
    `trusted` says whose files of the store may run (`spp.store.trust`).
    Raises as `submit` does, and ValueError if there is no such sweep.
    """
    plan = store.read_plan(sweep)
    cluster = ClusterConfig.read(store.read_cluster(sweep), "cluster")
    require_commands()
    submitter = Submitter(plan, store, sweep, cluster, job, code, observe or (lambda event: None), trusted)
    with submitting(store), _one_line():
        state = read_sweep_state(store, plan, sweep)
        requests = requests_for_retry(plan, store, cluster, state, automatic=automatic)
        if automatic and was_cancelled(store.read_jobs(sweep)):
            requests = {}
        return submitter.send(state, requests)


def cancel(store: Store, sweep: str) -> Cancelled:
    """End the jobs of a sweep, except those that another sweep waits for.

    Raises ValueError, in one line, if there is no such sweep or SLURM does not answer.
    """
    plan = store.read_plan(sweep)
    require_commands()
    with submitting(store), _one_line():
        reconcile(store, sweep)
        awaited = {job: name for _, _, job, name in awaited_jobs(store, sweep).values()}
        store.append_job(sweep, {"cancelled": utc_now()})
        # The first of all: it would take what follows for a failure.
        scancel(waiting_tenders(store, sweep))
        records = read_records(store, sweep)
        tasks = [(key, task) for record in records for key, task in newest_tasks([record]).items()]
        queue = squeue([*(task.job for _, task in tasks if task.job), *awaited])
        live = {}
        for key, task in tasks:
            found = in_queue(queue, task)
            if found is not None and found.phase != "ended":
                live[found.job] = (key, found.phase)
        needed = _needed_elsewhere(store, plan, sweep, {job: key for job, (key, _) in live.items()})
        ended = [job for job in live if job not in needed]
        # What waits goes first, so that nothing starts in the place of what is ended.
        scancel([job for job in ended if live[job][1] == "pending"])
        scancel([job for job in ended if live[job][1] == "running"])
        others = [job for job in awaited if job in queue and queue[job].name == awaited[job]]
        kept = [*(job for job in live if job in needed), *(job for job in others if queue[job].phase != "ended")]
    return Cancelled(tuple(ended), tuple(kept))


def _needed_elsewhere(store: Store, plan: Plan, sweep: str, key_of: dict[str, str]) -> set[str]:
    """Those of the jobs that other sweeps wait for, and what these jobs wait for themselves."""
    awaited = {
        job for other in store.list_sweeps() if other != sweep for _, _, job, _ in awaited_jobs(store, other).values()
    }
    needed_keys = {key for job, key in key_of.items() if job in awaited}
    stack = list(needed_keys)
    while stack:
        fresh = set(plan.parents(stack.pop())) - needed_keys
        needed_keys |= fresh
        stack.extend(fresh)
    return {job for job, key in key_of.items() if key in needed_keys}


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns Unreachable into the one-line ValueError that users get."""
    try:
        yield
    except Unreachable as problem:
        raise ValueError(
            f"cluster: slurm gives no answer ({problem}); allowed: a controller that answers (scontrol ping); "
            "say the same again later, it goes on from where it is"
        ) from None
