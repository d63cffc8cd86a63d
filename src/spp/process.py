"""Who a process is, and whether it still lives."""

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process for all time: a process id alone comes back after a while, and on every machine.

    `machine` is a hash of the boot and of the process id namespace, so that neither the time before a reboot nor
    another container under the same host name is taken for this machine; where the system does not tell them, of the
    host's name. The name itself may change while a machine runs. `start` is the start time in
    clock ticks after the boot (0 where the system does not tell).
    """

    host: str
    machine: str
    pid: int
    start: int

    @property
    def tag(self) -> str:
        """A piece of a file name that `from_tag` reads back."""
        return f"{self.host}-{self.machine}-{self.pid}-{self.start}"

    @classmethod
    def from_tag(cls, tag: str) -> "Process | None":
        parts = tag.rsplit("-", 3)
        if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    @classmethod
    def from_json(cls, value: object) -> "Process | None":
        """The process that `asdict` wrote; None if it was not that."""
        names = {"host": str, "machine": str, "pid": int, "start": int}
        if not isinstance(value, dict) or value.keys() != names.keys():
            return None
        if any(type(value[name]) is not kind for name, kind in names.items()) or value["pid"] < 1:
            return None
        return cls(**value)


def this_process() -> Process:
    """The calling process."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """The process of this machine that has this id now."""
    return Process(socket.gethostname(), _machine(), pid, _start_ticks(pid) or 0)


def is_alive(process: Process) -> bool | None:
    """Whether a process lives; None if it is one of another machine. A zombie does not live."""
    if process.machine != _machine():
        return None
    start = _start_ticks(process.pid)
    if start is not None:
        return start == process.start
    if os.path.exists("/proc/self/stat"):
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = socket.gethostname(), ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:8]


def _start_ticks(pid: int) -> int | None:
    """Start time of a living process; None if there is none, it is a zombie, or there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name in parentheses may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
