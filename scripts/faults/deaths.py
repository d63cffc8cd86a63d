"""Deaths: SIGKILL at a file-system call or at any time, signals, several submitters; the bytes in the end are the same.

A process that is to die at a file-system call counts those that write below the store; before or after the n-th of
them it is killed. Under cluster=local the same is done in every interpreter that the command starts, by a
sitecustomize.py on PYTHONPATH.
"""

import builtins
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.chain import artifacts_of, faults_of, start, words_of
from spp.store.atomic import read_lines

LIMIT_S = 300.0
"""One command, on a busy machine."""

MAX_CALL = {"debug": 400, "local": 80}
"""Deaths are at one of so many first calls of a process: of the whole chain, or of the worker of a stage."""
MAX_DELAY_S = {"debug": 3.0, "local": 12.0}
"""Deaths at any time come so soon: a chain takes a little longer."""

_CALLS = ("replace", "rename", "open", "fsync", "write", "unlink", "mkdir", "link", "rmdir", "symlink")
_INJECTED = """\
import os, sys
if os.environ.get("SPP_FAULTS_DIE_AT"):
    sys.path.insert(0, os.environ["SPP_FAULTS_CODE"])
    from faults.deaths import die_at
    die_at(int(os.environ["SPP_FAULTS_DIE_AT"]), after=os.environ["SPP_FAULTS_AFTER"] == "1")
"""


def die_at(number: int, *, after: bool) -> None:
    """From now on count the calls of this process that change files, and kill it before or after one of them."""
    left = number

    def counted(call: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= changes(*arguments, **options)
            if left <= 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name), _os_open_writes if name == "open" else _always))
    builtins.open = counted(builtins.open, _open_writes)


def _always(*arguments: Any, **options: Any) -> bool:
    return True


def _os_open_writes(path: Any, flags: int = 0, *arguments: Any, **options: Any) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _open_writes(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> bool:
    return any(letter in mode for letter in "wax+")


@dataclass
class Tally:
    """What was done to chains, and what was wrong with them in the end."""

    num_deaths: int = 0
    num_chains: int = 0
    num_commands: int = 0
    faults: list[str] = field(default_factory=list)


def attack(count: int, seed: int, folder: Path, wanted: dict[str, str], *, cluster: str, how: str) -> Tally:
    """Kill chains until `count` processes have died, each chain again and again until it is done.

    Args:
        count: deaths.
        seed: of their moments.
        folder: for the stores; each is removed when it has been looked at.
        wanted: the artifacts of an undisturbed chain.
        cluster: debug or local.
        how: "call" (SIGKILL at a file-system call), "time" (SIGKILL at any time) or "signal" (SIGINT, SIGTERM, SIGHUP).
    """
    tally, draw = Tally(), random.Random(seed)
    while tally.num_deaths < count:
        store, log = folder / f"{cluster}-{how}-{tally.num_chains}", folder / f"{cluster}-{how}.log"
        for attempt in range(60):
            disturbed = attempt < 50 and tally.num_deaths < count
            code = _command(store, log, cluster, how if disturbed else "", draw)
            tally.num_commands += 1
            tally.num_deaths += disturbed and code != 0
            if code == 0:
                break
            if not disturbed and code is None:
                tally.faults.append(f"{store.name}: longer than {LIMIT_S:.0f} s")
                break
        _settle(store)
        tally.faults += [f"{store.name}: {fault}" for fault in faults_of(store, wanted)]
        if "Traceback" in log.read_text(errors="replace") and how != "call":
            tally.faults.append(f"{store.name}: a traceback, see {log}")
        tally.num_chains += 1
        shutil.rmtree(store, ignore_errors=True)
    return tally


def _command(store: Path, log: Path, cluster: str, how: str, draw: random.Random) -> int | None:
    """One command that is killed in the way `how`; empty: in none. Its exit code; None if it had to be ended."""
    number, after = draw.randint(1, MAX_CALL[cluster]), draw.random() < 0.5

    def before() -> None:
        if how == "call" and cluster == "debug":
            die_at(number, after=after)
        elif how == "call":
            _inject(store.parent, number, after)

    process = start(words_of(store, cluster), log, before)
    if how in ("time", "signal"):
        time.sleep(draw.uniform(0.05, MAX_DELAY_S[cluster]))
        sent = signal.SIGKILL if how == "time" else draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        os.kill(process, sent)
    return wait(process)


def _inject(folder: Path, number: int, after: bool) -> None:
    """Have every interpreter that this process starts die at a call."""
    (folder / "injected").mkdir(exist_ok=True)
    (folder / "injected" / "sitecustomize.py").write_text(_INJECTED)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "injected"), os.environ.get("PYTHONPATH", "")])
    os.environ |= {"SPP_FAULTS_DIE_AT": str(number), "SPP_FAULTS_AFTER": str(int(after))}
    os.environ["SPP_FAULTS_CODE"] = str(Path(__file__).parents[1])


def wait(process: int) -> int | None:
    """The exit code of a child, negative for a signal; None if it had to be killed as it took too long."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.02)


def _settle(store: Path) -> None:
    """Wait until no orphan works in the store any more."""
    deadline = time.monotonic() + 30
    while list(store.glob("stages/*/*/claim-*")) and time.monotonic() < deadline:
        time.sleep(0.2)


def submit_at_once(num_submitters: int, folder: Path, finished: Path) -> Tally:
    """Several commands at the same moment on one store, under cluster=local: each stage is done once.

    Args:
        num_submitters: commands.
        folder: for the store.
        finished: store of an undisturbed chain.
    """
    store, log = folder / "at-once", folder / "at-once.log"
    processes = [start(words_of(store, "local"), log) for _ in range(num_submitters)]
    codes = [wait(process) for process in processes]
    _settle(store)
    faults = [f"exit code {code}" for code in codes if code != 0] + faults_of(store, artifacts_of(finished))
    rows = {file.relative_to(finished): len(read_lines(file)) for file in finished.glob("stages/*/*/metrics.jsonl")}
    faults += [f"{file} has other rows" for file, count in rows.items() if len(read_lines(store / file)) != count]
    shutil.rmtree(store, ignore_errors=True)
    print(f"submitters: exit codes {codes}", file=sys.stderr)
    return Tally(num_chains=1, num_commands=num_submitters, faults=faults)
