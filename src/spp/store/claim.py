"""Claims: who works on a stage. At most one living process holds one.

A claim is the file `claim-<generation>` in the stage's folder, made with O_EXCL, and it names its holder.
Giving it back renames it to `claim-<generation>.released`; taking over from a dead holder makes the next
generation. The newest generation counts, and generations only grow, so that a judgement ("3 is dead")
never goes stale: of several takers exactly one can make generation 4, however late the others act on what
they saw.

Whether a holder lives:
* a process of this machine is looked up by its id and its start time (ids are used again);
* an earlier run of the same SLURM job is dead, since SLURM ended it before it restarted the job;
* a process of another machine is judged by the caller's `alive` function (SLURM knows its jobs), and where
  that does not know, by its heartbeat: a thread touches the claim every BEAT_SECONDS, and after STALE_SECONDS
  without a beat the holder counts as dead;
* one that died before it wrote its name into its claim counts as dead after UNSIGNED_SECONDS.
Beats carry the time of the file server, and it is by that server's clock that they are judged: neither the clock of
the holder's machine nor that of the one that waits matters. A beat from the future is of a time before the server's
clock was set back, and as old as it is ahead.

A holder that was taken for dead but lives (a node that was cut off, a process that was stopped) finds `Claim.lost` set
at its next beat. Before it writes where its successor writes, it asks `Claim.look`.
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from spp.process import Process, is_alive, this_process
from spp.store.atomic import naming, read_json
from spp.store.clock import server_time
from spp.store.forms import is_job
from spp.store.store import Store

BEAT_SECONDS = 60.0
STALE_SECONDS = 600.0
UNSIGNED_SECONDS = 60.0
"""How long a claim may lack its holder's name: long enough for the name to show on a network file system."""

EXIT_CLAIMED = 75
"""Exit code of a worker process that met AlreadyClaimed (EX_TEMPFAIL of sysexits.h): not a failure."""

CLUSTER_VARIABLE = "SPP_SLURM_CLUSTER"
"""Where a job finds the name of its cluster, if it was submitted to another one than that of the submitting machine."""

CLAIM_PREFIX = "claim-"
_NAME = re.compile(r"claim-(\d{1,18})(\.released)?", re.ASCII)
_SAY_AFTER_SECONDS = 2.0
"""How long a lock is waited for in silence."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a claim. `job` is the SLURM job ("" outside of SLURM), `restarts` how often it was requeued,
    `since` is in seconds since 1970."""

    process: Process
    job: str
    restarts: int
    since: float

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.process.pid} on {self.process.host}{job}"


Liveness = Callable[[Holder], bool | None]
"""Whether a holder on another machine lives; None if it cannot be told."""


class AlreadyClaimed(Exception):  # noqa: N818 - it is no error: somebody else does the work
    """A living process works on the stage. `holder` is None in the moment in which its claim is written; `detail`
    says how old its claim is, until when it is waited for, and how to free it."""

    def __init__(self, kind: str, key: str, holder: Holder | None, detail: str = "") -> None:
        self.holder = holder
        self.detail = detail or str(holder or "a process that has just started")
        super().__init__(f"{kind} {key} is being done by {self.detail}")


@dataclass(frozen=True)
class Claim:
    """A held claim."""

    path: Path
    _lost: threading.Event

    @property
    def lost(self) -> bool:
        """Whether another process has taken over: stop, and leave no FAILED marker behind; as of the last look."""
        return self._lost.is_set()

    def look(self) -> bool:
        """Look now whether another process has taken over, or somebody has given the claim back (spp unlock).

        Raises OSError where the file server is away.
        """
        newest = _newest(os.listdir(self.path.parent))
        if newest is None or newest[1] or self.path.name != _name(newest[0]):
            self._lost.set()
        return self.lost


@contextmanager
def claim(
    store: Store,
    kind: str,
    key: str,
    *,
    alive: Liveness | None = None,
    beat_seconds: float = BEAT_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> Iterator[Claim]:
    """Hold the claim of a stage; the claim of a dead holder is taken over.

    Whoever gets it must look at the stage's DONE marker again (`Store.begin` does).
    Raises AlreadyClaimed if a living process holds it.
    """
    folder = store.stage_dir(kind, key)
    folder.mkdir(parents=True, exist_ok=True)
    mine = Claim(_take(folder, kind, key, alive, stale_seconds), threading.Event())
    try:
        with _beating(mine, beat_seconds):
            yield mine
    finally:
        _release(mine.path, done=store.is_done(kind, key))


@contextmanager
def lock(folder: Path, poll_seconds: float = 0.2) -> Iterator[None]:
    """Hold a folder alone, after whoever holds it now; it is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    began, told = time.monotonic(), None
    while True:
        try:
            mine = Claim(_take(folder, "lock", folder.name, None, STALE_SECONDS), threading.Event())
            break
        except AlreadyClaimed as claimed:
            if time.monotonic() - began > _SAY_AFTER_SECONDS and told != claimed.holder:
                told = claimed.holder
                _log.warning("waiting for %s", claimed.detail)
            time.sleep(poll_seconds)
    try:
        with _beating(mine, BEAT_SECONDS):
            yield
    finally:
        _release(mine.path, done=False)


def holder_of(folder: Path, names: Iterable[str], alive: Liveness | None = None) -> tuple[Holder | None, bool]:
    """Who holds the claim of a stage and whether it lives, given the `names` in its folder.

    (None, False) if nobody holds it; (None, True) in the moment in which a claim is being written.
    """
    newest = _newest(names)
    if newest is None or newest[1]:
        return None, False
    path = folder / _name(newest[0])
    holder = _read(path)
    try:
        verdict = None if holder is None else _verdict(holder, alive)
        return holder, _beats(path, holder, STALE_SECONDS) if verdict is None else verdict
    except FileNotFoundError:
        return None, False


def waiting_for(folder: Path, name: str, alive: Liveness | None = None) -> str:
    """Who holds the claim in a folder, how old it is, until when it counts as living, and how to free it; "" if
    nobody does.

    Args:
        folder: that of a stage, or of a lock.
        name: the key of the stage or name of the lock, as `spp unlock` takes it.
        alive: whether a holder on another machine lives.
    """
    newest = _newest(_names(folder))
    if newest is None or newest[1]:
        return ""
    path = folder / _name(newest[0])
    holder = _read(path)
    try:
        return _describe(path, holder, None if holder is None else _verdict(holder, alive), name)
    except FileNotFoundError:
        return ""


def unlock(folder: Path, alive: Liveness | None = None) -> Holder | None:
    """Give back the claim in a folder, whose holder may be gone; a holder that lives loses it at its next beat.

    Returns who held it; None if its name cannot be read.

    Raises:
        ValueError: one line, if nobody holds it, or its holder is known to live.
    """
    newest = _newest(_names(folder))
    if newest is None or newest[1]:
        raise ValueError(f"STAGE: nobody holds {folder.name}; allowed: one that is held; there is nothing to free")
    path = folder / _name(newest[0])
    holder = _read(path)
    if holder is not None and _verdict(holder, alive):
        raise ValueError(
            f"STAGE: {folder.name} is held by {holder}, which lives; allowed: one whose holder is gone; end that first "
            "(spp cancel)"
        )
    _release(path, done=False)
    return holder


def release_dead(store: Store, kind: str, key: str, alive: Liveness | None = None) -> None:
    """Give back the claim of a process that was ended before it could do so itself: one of this machine, or one
    of which `alive` knows that it is gone."""
    folder = store.stage_dir(kind, key)
    newest = _newest(_names(folder))
    if newest is not None and not newest[1]:
        holder = _read(folder / _name(newest[0]))
        if holder is not None and _verdict(holder, alive) is False:
            _release(folder / _name(newest[0]), done=store.is_done(kind, key))


def slurm_job() -> tuple[str, int]:
    """The SLURM job of this process ("12" or "12_3"; "" outside of SLURM) and how often it was requeued."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    else:
        job = env.get("SLURM_JOB_ID", "")
    if job and env.get(CLUSTER_VARIABLE):
        job = f"{job}@{env[CLUSTER_VARIABLE]}"
    return job, int(env.get("SLURM_RESTART_COUNT", "0"))


def _take(folder: Path, kind: str, key: str, alive: Liveness | None, stale_seconds: float) -> Path:
    job, restarts = slurm_job()
    while True:
        newest = _newest(os.listdir(folder))
        if newest is not None and not newest[1]:
            held = folder / _name(newest[0])
            holder = _read(held)
            try:
                verdict = None if holder is None else _verdict(holder, alive)
                if _beats(held, holder, stale_seconds) if verdict is None else verdict:
                    raise AlreadyClaimed(kind, key, holder, _describe(held, holder, verdict, key))
            except FileNotFoundError:
                continue
        generation = 1 if newest is None else newest[0] + 1
        path = folder / _name(generation)
        try:
            _write(path, Holder(this_process(), job, restarts, time.time()))
        except FileExistsError:
            # Where a folder listing lags behind (NFS), the new generation may take a moment to show.
            time.sleep(0.01)
            continue
        names = os.listdir(folder)
        if _newest(names) == (generation, False):
            _remove_older(folder, names, generation)
            return path
        path.unlink()


def _write(path: Path, holder: Holder) -> None:
    """Raises FileExistsError if there is such a claim; after another error there is none."""
    with naming(path), open(path, "x") as file:
        try:
            json.dump(asdict(holder), file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextmanager
def _beating(mine: Claim, beat_seconds: float) -> Iterator[None]:
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(mine, stopped, beat_seconds), name="claim", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()


def _beat(mine: Claim, stopped: threading.Event, beat_seconds: float) -> None:
    while not stopped.wait(beat_seconds):
        try:
            if mine.look():
                return
            os.utime(mine.path)
        except OSError:
            # A file server that is away for a moment is no reason to give up; a loss shows at the next beat.
            continue


def _release(path: Path, done: bool) -> None:
    try:
        if done:
            path.unlink()
        else:
            path.rename(path.with_name(path.name + ".released"))
    except FileNotFoundError:
        pass


def _beats(path: Path, holder: Holder | None, stale_seconds: float) -> bool:
    """Whether the last sign of life is young enough. Raises FileNotFoundError if the claim has vanished."""
    return abs(_beat_age(path)) < (UNSIGNED_SECONDS if holder is None else stale_seconds)


def _beat_age(path: Path) -> float:
    """Seconds since a claim was touched, by the clock that stamped it; below 0 if that was set back since."""
    return server_time(path.parent.parent) - path.stat().st_mtime


def _describe(path: Path, holder: Holder | None, verdict: bool | None, name: str) -> str:
    """What to tell whoever waits. Raises FileNotFoundError if the claim has vanished."""
    since = "" if holder is None else f", for {_duration(server_time(path.parent.parent) - holder.since)}"
    if verdict is None:
        age = abs(_beat_age(path))
        left = max(0.0, (UNSIGNED_SECONDS if holder is None else STALE_SECONDS) - age)
        until = f"its last sign of life is {_duration(age)} old, and it counts as gone in {_duration(left)}"
    else:
        until = "it lives" if verdict else "it is gone"
    return f"{holder or 'a process without a name'}{since}; {until}; if you know better: spp unlock {name}"


def _verdict(holder: Holder, alive: Liveness | None) -> bool | None:
    """Whether a holder lives, by what knows more than its beats; None where nobody does."""
    job, restarts = slurm_job()
    verdict = is_alive(holder.process)
    if verdict is None and job and holder.job == job and holder.restarts < restarts:
        verdict = False
    return alive(holder) if verdict is None and alive is not None else verdict


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _name(generation: int) -> str:
    return f"claim-{generation}"


def _newest(names: Iterable[str]) -> tuple[int, bool] | None:
    """Newest generation and whether it was given back."""
    claims = [(int(match[1]), match[2] is not None) for match in map(_NAME.fullmatch, names) if match]
    return max(claims, default=None)


def _remove_older(folder: Path, names: Iterable[str], generation: int) -> None:
    for name in names:
        match = _NAME.fullmatch(name)
        if match and int(match[1]) < generation:
            (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """Who wrote a claim; None as long as it does not say, or does not say it right."""
    content = read_json(path) or {}
    process = Process.from_json(content.get("process"))
    job, restarts, since = content.get("job"), content.get("restarts"), content.get("since")
    if process is None or not (job == "" or is_job(job)) or type(restarts) is not int or not isinstance(since, float):
        return None
    return Holder(process, str(job), restarts, since)
