"""Why a stage is missing, and how to ask for it again."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan
from spp.schedule.batch_records import Task, jobs_folder, submission_log_of
from spp.schedule.queue import Accounted, base, number, sacct
from spp.schedule.submitter import JobRequest
from spp.schedule.sweep_state import SweepState
from spp.store.store import Store

_OUT_OF_TIME = b"timed-out too many times"
_OUT_OF_MEMORY = (b"oom-kill", b"oom_kill", b"Out Of Memory")
_TAIL_BYTES = 20_000
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)([cn]?)")
_GB_OF_UNIT = {"K": 1 / 1024**2, "": 1 / 1024, "M": 1 / 1024, "G": 1.0, "T": 1024.0}


class Fate(StrEnum):
    """What became of a stage that is missing."""

    NEVER = "never"
    """It was not tried: not submitted, or what it needs is missing."""
    FAILED = "failed"
    """It raised an exception: the user's or the program's fault."""
    CANCELLED = "cancelled"
    MEMORY = "memory"
    TIME = "time"
    MACHINE = "machine"
    """The node, or nobody knows."""


_TRIED_AUTOMATICALLY = (Fate.NEVER, Fate.MEMORY, Fate.TIME, Fate.MACHINE)


def requests_for_retry(
    plan: Plan, store: Store, cluster: ClusterConfig, state: SweepState, *, automatic: bool
) -> dict[str, JobRequest]:
    """How to submit what is missing; with `automatic` only what may succeed without anybody's help."""
    missing = [key for key in plan.stages if state.is_missing(key)]
    tasks = {key: state.tasks[key] for key in missing if key in state.tasks}
    accounted = sacct(task.job for task in tasks.values() if task.job) or {}
    requests: dict[str, JobRequest] = {}
    for key in missing:
        task, stage = tasks.get(key), plan.stages[key]
        row = accounted.get(task.job or "") if task else None
        row = row if row is not None and task is not None and row.name == task.record.name else None
        is_blocked = any(state.is_missing(parent) for parent in plan.parents(key))
        fate = _fate(store, state, key, task, row, is_blocked=is_blocked)
        attempt = 0 if task is None else task.record.attempts.get(key, 0)
        if fate in (Fate.MEMORY, Fate.TIME, Fate.MACHINE):
            attempt = attempt + 1 if automatic else 1
        reachable = all(not state.is_missing(parent) or parent in requests for parent in plan.parents(key))
        if automatic and not (fate in _TRIED_AUTOMATICALLY and attempt <= cluster.num_retries and reachable):
            continue
        resources = _resources(stage.resources, task, row, fate, cluster.growth)
        begin_min = cluster.backoff_min * 2 ** (attempt - 1) if fate is Fate.MACHINE else 0.0
        requests[key] = JobRequest(resources, begin_min, attempt)
    return requests


def _fate(
    store: Store, state: SweepState, key: str, task: Task | None, row: Accounted | None, *, is_blocked: bool
) -> Fate:
    if task is None or task.job is None:
        return Fate.NEVER
    kind, _ = task.record.tasks[task.index]
    failure = store.failure(kind, key) if key in state.failed else None
    if failure is not None:
        return Fate.TIME if _OUT_OF_TIME.decode() in failure["traceback"] else Fate.FAILED
    job = state.job_of(key)
    if job is not None and job.phase == "pending" and not job.reason.lower().startswith(("launch", "jobholdmax")):
        return Fate.NEVER
    word = (row.state if row else job.state if job else "").partition(" ")[0]
    if word == "OUT_OF_MEMORY":
        return Fate.MEMORY
    if word == "TIMEOUT":
        return Fate.TIME
    if word == "CANCELLED":
        # Some sites cancel what waits for a failed job.
        return Fate.NEVER if is_blocked else Fate.CANCELLED
    if not word and not submission_log_of(store, task).exists() and _knows_siblings(state, task):
        return Fate.NEVER if is_blocked else Fate.CANCELLED
    return _fate_by_files(store, task)


def _knows_siblings(state: SweepState, task: Task) -> bool:
    """Whether the queue knows other tasks of an array; then one that it does not know was cancelled in time."""
    return any(base(job.job) == task.record.job and job.name == task.record.name for job in state.queue.values())


def _fate_by_files(store: Store, task: Task) -> Fate:
    """What submitit left behind tells apart what SLURM calls FAILED, or does not remember."""
    folder = jobs_folder(store, task.record.sweep, task.record.batch)
    # The result is a pickle, which is not for opening; the text in it stands as it is.
    left = b"".join(_tail(folder / f"{number(task.job or '')}_0_{name}") for name in ("result.pkl", "log.err"))
    if _OUT_OF_TIME in left:
        return Fate.TIME
    return Fate.MEMORY if any(sign in left for sign in _OUT_OF_MEMORY) else Fate.MACHINE


def _tail(path: Any) -> bytes:
    try:
        return bytes(path.read_bytes()[-_TAIL_BYTES:])
    except FileNotFoundError:
        return b""


def _resources(
    planned: Mapping[str, Any], task: Task | None, row: Accounted | None, fate: Fate, growth: float
) -> dict[str, Any]:
    """What was planned, or what an earlier retry made of it, and more of what was too little."""
    last = planned if task is None else task.record.resources
    memory = [given["mem_gb"] for given in (planned, last) if given.get("mem_gb")]
    mem_gb = max(memory, default=None)
    timeout_min = max(planned["timeout_min"], last["timeout_min"])
    if fate is Fate.MEMORY:
        mem_gb = mem_gb or (memory_gb(row.req_mem, planned) if row else None)
        mem_gb = None if mem_gb is None else mem_gb * growth
    if fate is Fate.TIME:
        timeout_min = -int(-timeout_min * growth // 1)
    return {**planned, "mem_gb": mem_gb, "timeout_min": timeout_min}


def memory_gb(text: str, resources: Mapping[str, Any]) -> float | None:
    """GB on each node of what sacct calls ReqMem: "4000M", or of older versions "4Gn" (node) and "2Gc" (core)."""
    found = _MEMORY.fullmatch(text)
    if found is None or float(found[1]) == 0:
        return None
    cores = (resources.get("tasks_per_node") or resources.get("gpus_per_node") or 1) * resources["cpus_per_task"]
    return float(found[1]) * _GB_OF_UNIT[found[2]] * (cores if found[3] == "c" else 1)
