"""How far a plan is, by the markers in the store; reads only the plan's own stages and changes nothing."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.claim import Liveness, holder_of
from spp.store.marker import DONE, damage, read_marker
from spp.store.own_line import message
from spp.store.store import FAILED, Progress, Store

ERROR_LINES = 5

# Waiting for a network file system, not for the processor: a folder costs a few round trips.
_NUM_THREADS = 16
_STAGES_PER_TASK = 64


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    """Not started, whether or not it was submitted."""
    BLOCKED = "blocked"
    """Needs a failed or lost stage, the `culprit`."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Not done when somebody cancelled its sweep, or its job."""
    LOST = "lost"
    """Started or submitted, and gone without a marker."""


_CULPRITS = (State.FAILED, State.LOST, State.CANCELLED)
_WORST_FIRST = (State.FAILED, State.LOST, State.CANCELLED, State.BLOCKED, State.RUNNING, State.QUEUED)


@dataclass(frozen=True)
class LiveJob:
    """What a cluster says about a stage's newest job: `state` is "pending", "running" or "gone"."""

    job: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Live:
    """What a cluster knows that the files do not: jobs by stage key, and whether a claim's holder on another
    machine lives. `note` says why nothing is known."""

    jobs: Mapping[str, LiveJob]
    alive: Liveness | None = None
    note: str = ""


@dataclass(frozen=True)
class StageStatus:
    """State of one stage.

    `seconds`: how long it took or has been running; `error`: the user's own line of the traceback and what was wrong,
    or why a job waits; `waits`: what it waits for, in words; `culprit`: key of the stage that blocks it;
    `code_hash`: of the code that made a finished stage;
    `job`: the SLURM job, if it has one.
    """

    kind: str
    key: str
    label: str
    state: State
    culprit: str | None = None
    progress: Progress | None = None
    seconds: float | None = None
    error: str | None = None
    waits: str | None = None
    host: str | None = None
    job: str | None = None
    code_hash: str | None = None


@dataclass(frozen=True)
class PointStatus:
    """State of one point: `counts` of the states of its stages, `culprit` the first failed or lost one."""

    name: str
    overrides: tuple[str, ...]
    state: State
    counts: Mapping[str, int]
    culprit: str | None


@dataclass(frozen=True)
class SweepStatus:
    """State of a sweep: `counts` maps kind -> state -> number of stages, kinds in the plan's order."""

    sweep: str
    stages: tuple[StageStatus, ...]
    points: tuple[PointStatus, ...]
    counts: Mapping[str, Mapping[str, int]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sweep_status(store: Store, sweep: str, live: Live | None = None) -> SweepStatus:
    """State of a sweep that was written down. Raises ValueError if there is no such sweep."""
    plan = store.read_plan(sweep)
    stages = plan_status(store, plan, live, is_cancelled=was_cancelled(store.read_jobs(sweep)))
    counts: dict[str, Counter[str]] = {}
    for status in stages.values():
        counts.setdefault(status.kind, Counter())[status.state.value] += 1
    points = tuple(_point_status(plan, point, stages) for point in plan.points)
    return SweepStatus(sweep, tuple(stages.values()), points, {kind: dict(c) for kind, c in counts.items()})


def was_cancelled(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nobody has begun or submitted anything since a sweep was cancelled; by the rows of its jobs.jsonl."""
    last = [word for row in rows for word in ("cancelled", "batch", "began") if word in row]
    return bool(last) and last[-1] == "cancelled"


def plan_status(
    store: Store, plan: Plan, live: Live | None = None, *, is_cancelled: bool = False
) -> dict[str, StageStatus]:
    """State of every stage of a plan by key, in topological order. `is_cancelled`: so is what nobody works on."""
    live = live or Live({})
    stages = list(plan.stages.values())
    chunks = [stages[i : i + _STAGES_PER_TASK] for i in range(0, len(stages), _STAGES_PER_TASK)]
    statuses: dict[str, StageStatus] = {}
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for seen in pool.map(lambda chunk: [_look(store, stage, live) for stage in chunk], chunks):
            statuses.update({status.key: status for status in seen})
    if is_cancelled:
        statuses = {key: _given_up(status, live) for key, status in statuses.items()}
    return {key: _ended_by_hand(status) for key, status in _with_culprits(plan, statuses).items()}


def _look(store: Store, stage: Stage, live: Live) -> StageStatus:
    """State by the stage's own folder: one listing, and the files that the listing makes interesting."""
    folder = store.stage_dir(stage.kind, stage.key)
    try:
        names: Sequence[str] = os.listdir(folder)
    except FileNotFoundError:
        names = ()
    status = StageStatus(stage.kind, stage.key, stage.label, State.QUEUED)
    if DONE in names:
        marker = read_marker(folder)
        problem = damage(folder, marker)
        if marker is None or problem is not None:
            return replace(status, state=State.FAILED, error=f"{problem}; the next spp run or spp retry makes it again")
        return replace(status, state=State.DONE, seconds=marker.get("seconds"), code_hash=marker.get("code_hash"))
    holder, alive = holder_of(folder, names, live.alive)
    if holder is not None:
        status = replace(status, host=holder.process.host, job=holder.job or None)
    if "progress.json" in names:
        status = replace(status, progress=store.read_progress(stage.kind, stage.key))
    job = live.jobs.get(stage.key)
    if job is not None:
        status = replace(status, job=job.job or None)
    if job is not None and job.state == "pending":
        # Also one that waits to go on, whose claim may look alive, and one with the failure of an earlier try.
        return replace(status, error=job.reason or None)
    if alive:
        seconds = None if holder is None else time.time() - holder.since
        return replace(status, state=State.RUNNING, seconds=seconds)
    if job is not None and job.state == "running":
        return replace(status, state=State.RUNNING, error=job.reason or None)
    if FAILED in names:
        failure = store.failure(stage.kind, stage.key) or {"traceback": "", "where": "", "host": None}
        error = "\n".join(_told(failure))
        return replace(status, state=State.FAILED, error=error, host=failure["host"] or None, progress=None)
    if job is not None:
        return replace(status, state=State.LOST, error=job.reason or None)
    return status if holder is None else replace(status, state=State.LOST)


def _told(failure: Mapping[str, str]) -> list[str]:
    """The user's own line, and what was wrong; of a traceback without frames its last lines."""
    if not failure["where"]:
        return failure["traceback"].splitlines()[-ERROR_LINES:]
    return [failure["where"], *message(failure["traceback"])[-ERROR_LINES:]]


def _given_up(status: StageStatus, live: Live) -> StageStatus:
    """A stage of a cancelled sweep: cancelled as well, unless it has ended or somebody still works on it."""
    job = live.jobs.get(status.key)
    waits = status.state is State.QUEUED and job is not None and job.state == "pending"
    is_left = status.state in (State.QUEUED, State.LOST) and not waits
    return replace(status, state=State.CANCELLED, progress=None) if is_left else status


def _ended_by_hand(status: StageStatus) -> StageStatus:
    """A stage whose job SLURM says was cancelled."""
    is_it = status.state is State.LOST and (status.error or "").rpartition("\n")[2].startswith("CANCELLED")
    return replace(status, state=State.CANCELLED) if is_it else status


def _with_culprits(plan: Plan, statuses: dict[str, StageStatus]) -> dict[str, StageStatus]:
    for key, status in statuses.items():
        # Some sites cancel what waits for a failed job, which is not lost then.
        if status.state is State.QUEUED or (status.state is State.LOST and status.host is None):
            culprits = (_culprit(statuses[parent]) for parent in plan.parents(key))
            culprit = next((culprit for culprit in culprits if culprit is not None), None)
            if culprit is not None:
                statuses[key] = replace(status, state=State.BLOCKED, culprit=culprit)
    return statuses


def _culprit(status: StageStatus) -> str | None:
    """Key of the stage to blame when this one does not get done; None if it may still."""
    return status.key if status.state in _CULPRITS else status.culprit


def _point_status(plan: Plan, point: Point, stages: Mapping[str, StageStatus]) -> PointStatus:
    needed = [stages[key] for key in plan.stages_of(point)]
    counts = Counter(status.state.value for status in needed)
    state = next((state for state in _WORST_FIRST if counts[state.value]), State.DONE)
    culprit = next((status.key for status in needed if status.state in _CULPRITS), None)
    if all(stages[stage.key].state is State.DONE for stage in point.stages):
        state, culprit = State.DONE, None
    return PointStatus(point.name, point.overrides, state, dict(counts), culprit)
