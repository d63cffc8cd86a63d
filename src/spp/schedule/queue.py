"""What SLURM knows about jobs: one bulk squeue, and sacct where the site has it.

Jobs are asked for by id and told apart by id and name, since a controller that lost its last seconds gives ids
again. "12" is a plain job, "12_3" a task of an array, whose base is "12"; "12_3@alpha" is one of the cluster alpha,
where that is not the one of this machine.
"""

import os
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from spp.store.claim import Holder, Liveness

PATIENCE_SECONDS = 60.0
"""How long a controller that does not answer is asked again, unless the caller says otherwise."""

_TIMEOUT_SECONDS = 60.0
_CACHE_SECONDS = 5.0
_IDS_PER_CALL = 2000

_PENDING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_HOPELESS = {"dependencyneversatisfied", "launch_failed_requeued_held", "jobholdmaxrequeue"}
_HABITS = ("SQUEUE_", "SACCT_", "SCANCEL_")
_AWAY = ("unable to contact", "connection refused", "timed out", "connect failure", "connection reset", "try again")


class Unreachable(Exception):  # noqa: N818 - it says something about SLURM, not about the program
    """SLURM's controller gives no answer, or its commands are not here; the text is one line."""


@dataclass(frozen=True)
class Job:
    """A task in the queue, or one that has ended and is still remembered."""

    job: str
    name: str
    state: str
    reason: str

    @property
    def phase(self) -> str:
        """pending, running or ended."""
        if self.state in _PENDING:
            return "pending"
        return "running" if self.state in _RUNNING else "ended"

    @property
    def is_hopeless(self) -> bool:
        """Whether it will stay pending until somebody does something."""
        return self.phase == "pending" and self.reason.replace(" ", "_").lower() in _HOPELESS


@dataclass(frozen=True)
class Accounted:
    """What accounting says of a task: its state ("CANCELLED by 1000") and the memory that it had asked for."""

    job: str
    name: str
    state: str
    req_mem: str


def squeue(jobs: Iterable[str], patience_seconds: float | None = None) -> dict[str, Job]:
    """The tasks of these jobs that the queue knows, by id; one call whatever their number (almost).

    Raises Unreachable if the controller gives no answer for so long: nothing is known then.
    """
    found: dict[str, Job] = {}
    for cluster, bases in _by_cluster(map(base, jobs)).items():
        for start in range(0, len(bases), _IDS_PER_CALL):
            ids = ",".join(bases[start : start + _IDS_PER_CALL])
            command = ["squeue", *_at(cluster), "-h", "-r", "-t", "all", "-j", ids, "-o", "%i|%T|%j|%r"]
            for job, state, name, reason in _rows(_ask(command, patience_seconds), 4):
                found[at(job, cluster)] = Job(at(job, cluster), name, state, reason)
    return found


def commented(prefix: str, cluster: str = "", patience_seconds: float | None = None) -> dict[str, str]:
    """The comment of each of the user's own jobs that wait or run and whose comment begins so, by id.

    Raises Unreachable if the controller gives no answer.
    """
    text = _ask(["squeue", *_at(cluster), "-h", "-r", "--me", "-o", "%i|%k"], patience_seconds)
    return {at(job, cluster): comment for job, comment in _rows(text, 2) if comment.startswith(prefix)}


def find_by_name(
    names: Collection[str], since: float, patience_seconds: float | None = None, cluster: str = ""
) -> dict[str, str]:
    """Base ids of the jobs of a cluster with these names that were submitted after `since` (seconds since 1970).

    Raises Unreachable if the controller gives no answer.
    """
    if not names:
        return {}
    words = ",".join(names)
    text = _ask(["squeue", *_at(cluster), "-h", "-t", "all", "-n", words, "-o", "%i|%j"], patience_seconds)
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
    text = (_sacct([*_at(cluster), "--name", words, "-S", start, "-o", "JobID,JobName"]) or "") + text
    return {name: at(base(job), cluster) for job, name in _rows(text, 2) if name in names}


def sacct(jobs: Iterable[str]) -> dict[str, Accounted] | None:
    """What accounting knows of these jobs, by id; None where there is none or it is not for this user."""
    found: dict[str, Accounted] = {}
    for cluster, bases in _by_cluster(map(base, jobs)).items():
        text = _sacct([*_at(cluster), "-j", ",".join(bases), "-o", "JobID,State,ReqMem,JobName"])
        if text is None:
            return None
        for job, state, mem, name in _rows(text, 4):
            found[at(job, cluster)] = Accounted(at(job, cluster), name, state, mem)
    return found


def scancel(jobs: Collection[str], patience_seconds: float | None = None) -> None:
    """End jobs; none is fine. Raises Unreachable if the controller gives no answer."""
    for cluster, tasks in _by_cluster(jobs).items():
        for start in range(0, len(tasks), _IDS_PER_CALL):
            _ask(["scancel", *_at(cluster), *tasks[start : start + _IDS_PER_CALL]], patience_seconds)


def job_liveness(patience_seconds: float = 0.0) -> Liveness:
    """Whether the SLURM job of a claim's holder lives; None for holders outside of SLURM and without an answer.

    A job that was requeued and waits lives: it goes on with its stage by itself.
    """
    known: dict[str, tuple[float, dict[str, Job] | None]] = {}

    def alive(holder: Holder) -> bool | None:
        if not holder.job:
            return None
        asked, rows = known.get(base(holder.job), (float("-inf"), None))
        if time.monotonic() - asked > _CACHE_SECONDS:
            try:
                rows = squeue([holder.job], patience_seconds)
            except Unreachable:
                rows = None
            known[base(holder.job)] = (time.monotonic(), rows)
        if rows is None:
            return None
        return holder.job in rows and rows[holder.job].phase != "ended"

    return alive


def base(job: str) -> str:
    """Id of the job that a task belongs to."""
    return at(number(job).partition("_")[0], cluster_of(job))


def number(job: str) -> str:
    """The id as the job's own cluster has it: "12_3" of "12_3@alpha"."""
    return job.partition("@")[0]


def cluster_of(job: str) -> str:
    """The cluster of a job; empty for that of this machine."""
    return job.partition("@")[2]


def at(job: str, cluster: str) -> str:
    """The id of a job of a cluster."""
    return f"{job}@{cluster}" if cluster else job


def task_of(job: str, index: int) -> str:
    """The id of a task of an array."""
    return at(f"{number(job)}_{index}", cluster_of(job))


def _at(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _by_cluster(jobs: Iterable[str]) -> dict[str, list[str]]:
    """The numbers of jobs by their cluster, in order and each once."""
    found: dict[str, set[str]] = {}
    for job in jobs:
        found.setdefault(cluster_of(job), set()).add(number(job))
    return {
        cluster: sorted(ids, key=lambda one: [int(part) for part in one.split("_")]) for cluster, ids in found.items()
    }


def _rows(text: str, num_fields: int) -> list[list[str]]:
    """The rows of an answer; asked of a named cluster, SLURM says its name first."""
    rows = (line.split("|", num_fields - 1) for line in text.splitlines())
    return [row for row in rows if len(row) == num_fields]


def is_away(message: str) -> bool:
    """Whether an error of a SLURM command means that the controller did not answer."""
    return any(sign in message.lower() for sign in _AWAY)


def _ask(command: list[str], patience_seconds: float | None) -> str:
    deadline = time.monotonic() + (PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
    pause = 1.0
    while True:
        try:
            answer = _answer(command)
        except FileNotFoundError:
            raise Unreachable(f"{command[0]} is not on PATH") from None
        except subprocess.TimeoutExpired:
            problem = f"no answer within {_TIMEOUT_SECONDS:.0f} s"
        else:
            # This is how squeue says that it knows none of the ids.
            if answer.returncode == 0 or "Invalid job id" in answer.stderr:
                return answer.stdout
            problem = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        if not is_away(problem) or time.monotonic() + pause > deadline:
            raise Unreachable(f"{command[0]}: {problem}")
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def _sacct(options: list[str]) -> str | None:
    try:
        answer = _answer(["sacct", "-X", "-n", "-P", *options])
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _answer(command: list[str]) -> subprocess.CompletedProcess[str]:
    # With SQUEUE_PARTITION=gpu in somebody's profile the jobs of other partitions would count as gone.
    env = {name: value for name, value in os.environ.items() if not name.startswith(_HABITS)}
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, env=env)
