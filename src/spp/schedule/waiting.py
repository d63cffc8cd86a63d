"""What a stage that has not begun waits for, in words."""

from collections.abc import Mapping, Sequence

from spp.plan.graph import Plan
from spp.schedule.status import StageStatus, State

_MAX_NAMED = 3

_REASONS = {
    "priority": "other jobs come before it",
    "resources": "for nodes that are free",
    "dependency": "for the jobs of its inputs",
    "none": "SLURM has not looked at it yet",
    "begintime": "for the time at which it may begin, after a fault of the machine",
    "jobheldadmin": "it is held by the site; ask its staff",
    "jobhelduser": "it is held; let it go with scontrol release",
    "jobarraytasklimit": "for a slot of its job array (cluster.max_parallel)",
    "reqnodenotavail": "for nodes that are down or reserved",
    "partitiondown": "its partition is down",
    "partitiontimelimit": "its time limit is longer than the partition's; lower cluster.resources.KIND.timeout_min",
    "partitionnodelimit": "it asks for more nodes than the partition gives",
    "dependencyneversatisfied": "for a job that has failed; spp retry submits it again",
    "licenses": "for a licence",
    "reservation": "for its reservation",
}
"""Reasons of SLURM, without spaces and in small letters, and what they mean."""

_LIMITS = (
    ("qos", "the limit of its quality of service"),
    ("assoc", "the limit of its account"),
    ("maxjobs", "the limit on jobs at a time"),
    ("maxcpu", "the limit on cores"),
    ("maxgres", "the limit on GPUs"),
)


def slurm_reason(reason: str) -> str:
    """A reason of SLURM in words, with SLURM's own in brackets: `other jobs come before it (Priority)`."""
    word = reason.partition(",")[0].replace("_", "").replace(" ", "").lower()
    known = _REASONS.get(word)
    if known is None:
        known = next((f"for {text}" for sign, text in _LIMITS if sign in word), None)
    return reason if known is None else f"{known} ({reason})"


def explain(
    plan: Plan, statuses: Mapping[str, StageStatus], *, max_parallel: int | None, is_slurm: bool, at_work: bool
) -> dict[str, str]:
    """By key what each queued or blocked stage waits for.

    Args:
        plan: of the sweep.
        statuses: of its stages.
        max_parallel: stages at a time on this machine.
        is_slurm: whether SLURM decides.
        at_work: whether somebody carries the sweep out, or its jobs wait.
    """
    num_running = sum(status.state is State.RUNNING for status in statuses.values())
    told: dict[str, str] = {}
    for key, status in statuses.items():
        if status.state is State.BLOCKED and status.culprit is not None:
            culprit = statuses[status.culprit]
            told[key] = f"{_name(culprit)} {culprit.state.value}; it waits for spp retry"
        elif status.state is State.QUEUED:
            told[key] = _of_queued(plan, statuses, status, max_parallel, num_running, is_slurm, at_work)
    return told


def _of_queued(
    plan: Plan,
    statuses: Mapping[str, StageStatus],
    status: StageStatus,
    max_parallel: int | None,
    num_running: int,
    is_slurm: bool,
    at_work: bool,
) -> str:
    missing = [statuses[parent] for parent in plan.parents(status.key) if statuses[parent].state is not State.DONE]
    reason = "" if status.error is None else slurm_reason(status.error)
    if missing and (not reason or "dependency" in (status.error or "").lower()):
        return f"inputs: {_names(missing)}"
    if reason:
        return reason
    if status.host is not None:
        return f"a claim that {status.host} holds"
    if is_slurm:
        return "nobody has submitted it; spp retry does"
    if not at_work:
        return "nobody works on the sweep; spp retry goes on"
    slots = max_parallel or 1
    return f"a slot: {num_running} of {slots} in use (cluster.max_parallel)"


def _names(statuses: Sequence[StageStatus]) -> str:
    some = ", ".join(f"{_name(status)} {status.state.value}" for status in statuses[:_MAX_NAMED])
    return f"{some}, and {len(statuses) - _MAX_NAMED} more" if len(statuses) > _MAX_NAMED else some


def _name(status: StageStatus) -> str:
    return f"{status.kind} {status.key[:8]}"
