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

A holder that was taken for dead but lives (a node that was cut off) finds `Claim.lost` set at its next beat.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from spp.store.atomic import read_json, temporary
from spp.store.process import Process, is_alive, this_process
from spp.store.store import Store

BEAT_SECONDS = 60.0
STALE_SECONDS = 600.0
UNSIGNED_SECONDS = 60.0
"""How long a claim may lack its holder's name: long enough for the name to show on a network file system."""

EXIT_CLAIMED = 75
"""Exit code of a worker process that met AlreadyClaimed (EX_TEMPFAIL of sysexits.h): not a failure."""

_NAME = re.compile(r"claim-(\d+)(\.released)?")


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
    """A living process works on the stage. `holder` is None in the moment in which its claim is written."""

    def __init__(self, kind: str, key: str, holder: Holder | None) -> None:
        super().__init__(f"{kind} {key} is being done by {holder or 'a process that has just started'}")
        self.holder = holder


@dataclass(frozen=True)
class Claim:
    """A held claim."""

    path: Path
    _lost: threading.Event

    @property
    def lost(self) -> bool:
        """Whether another process has taken over: stop, and leave no FAILED marker behind."""
        return self._lost.is_set()


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
    while True:
        try:
            mine = Claim(_take(folder, "lock", folder.name, None, STALE_SECONDS), threading.Event())
            break
        except AlreadyClaimed:
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
        return holder, _lives(path, holder, alive, STALE_SECONDS, now=time.time)
    except FileNotFoundError:
        return None, False


def release_dead(store: Store, kind: str, key: str, alive: Liveness | None = None) -> None:
    """Give back the claim of a process that was ended before it could do so itself: one of this machine, or one
    of which `alive` knows that it is gone."""
    folder = store.stage_dir(kind, key)
    newest = _newest(os.listdir(folder))
    if newest is not None and not newest[1]:
        holder = _read(folder / _name(newest[0]))
        verdict = None if holder is None else is_alive(holder.process)
        if verdict is None and holder is not None and alive is not None:
            verdict = alive(holder)
        if verdict is False:
            _release(folder / _name(newest[0]), done=store.is_done(kind, key))


def slurm_job() -> tuple[str, int]:
    """The SLURM job of this process ("12" or "12_3"; "" outside of SLURM) and how often it was requeued."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    else:
        job = env.get("SLURM_JOB_ID", "")
    return job, int(env.get("SLURM_RESTART_COUNT", "0"))


def _take(folder: Path, kind: str, key: str, alive: Liveness | None, stale_seconds: float) -> Path:
    job, restarts = slurm_job()
    while True:
        newest = _newest(os.listdir(folder))
        if newest is not None and not newest[1]:
            held = folder / _name(newest[0])
            holder = _read(held)
            try:
                if _lives(held, holder, alive, stale_seconds, now=lambda: _file_server_time(folder)):
                    raise AlreadyClaimed(kind, key, holder)
            except FileNotFoundError:
                continue
        generation = 1 if newest is None else newest[0] + 1
        path = folder / _name(generation)
        try:
            with open(path, "x") as file:
                json.dump(asdict(Holder(this_process(), job, restarts, time.time())), file)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            # Where a folder listing lags behind (NFS), the new generation may take a moment to show.
            time.sleep(0.01)
            continue
        names = os.listdir(folder)
        if _newest(names) == (generation, False):
            _remove_older(folder, names, generation)
            return path
        path.unlink()


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
            newest = _newest(os.listdir(mine.path.parent))
            if newest is None or mine.path.name != _name(newest[0]):
                mine._lost.set()
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


def _lives(
    path: Path, holder: Holder | None, alive: Liveness | None, stale_seconds: float, now: Callable[[], float]
) -> bool:
    """Raises FileNotFoundError if the claim has vanished."""
    if holder is None:
        return now() - path.stat().st_mtime < UNSIGNED_SECONDS
    job, restarts = slurm_job()
    verdict = is_alive(holder.process)
    if verdict is None and job and holder.job == job and holder.restarts < restarts:
        verdict = False
    if verdict is None and alive is not None:
        verdict = alive(holder)
    if verdict is not None:
        return verdict
    return now() - path.stat().st_mtime < stale_seconds


def _file_server_time(folder: Path) -> float:
    # The beats carry the file server's time, which may differ from this machine's.
    probe = temporary(folder)
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


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
    content = read_json(path)
    if content is None:
        return None
    return Holder(Process(**content["process"]), content["job"], content["restarts"], content["since"])
