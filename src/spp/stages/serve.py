"""Starts the stages of a store, each in a process that has everything imported: python -m spp.stages.serve STORE.

Lines of JSON go in and out:

    in   {"kind", "key", "log", "environment"}   do this stage, with its output appended to the file `log`
    out  {"ready": true}                         once, when everything is imported
    out  {"started": pid}                        the answer to a request; the process leads a group of its own
    out  {"ended": pid, "code": c}               c as of subprocess: below 0 for a signal

A stage's process is a fork of this one, which never does a stage itself. So whatever a stage leaves behind (random
state, threads, signal handlers, memory) ends with its process, as if Python had been started for it.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn, TextIO

from spp.stages.quick_imports import quick_imports


def main() -> int:
    """Serve until the requests end; stages that run then go on without this process."""
    root = sys.argv[1]
    requests, replies = _take_pipes()
    preload()
    _reply(replies, {"ready": True})
    signal.signal(signal.SIGCHLD, lambda number, frame: _report_ended(replies))
    for line in requests:
        request = json.loads(line)
        # The end of a process is not told before its start.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            os.close(replies)
            requests.close()
            _exit(_work(root, request))
        _lead_group(pid)
        _reply(replies, {"started": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return 0


def preload() -> None:
    """Import this package and with it torch. An import that fails does so again in the stage, which says so."""
    with contextlib.suppress(Exception), quick_imports():
        for module in pkgutil.iter_modules([str(Path(__file__).parent)], "spp.stages."):
            importlib.import_module(module.name)


def _work(root: str, request: dict[str, Any]) -> int:
    _lead_group(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.argv[1:] = [root, request["kind"], request["key"]]
    try:
        code: int = importlib.import_module("spp.stages.worker").main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return code


def _exit(code: int) -> NoReturn:
    """End as Python does, but without taking the modules apart, which takes seconds in a fork."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def _lead_group(pid: int) -> None:
    # Both sides of the fork do it: neither may go on before it is so, and either may come first.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)


def _take_pipes() -> tuple[TextIO, int]:
    """The requests and the descriptor for replies, out of reach of what imports and stages read and print."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _reply(replies: int, reply: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(replies, json.dumps(reply).encode() + b"\n")


def _report_ended(replies: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _reply(replies, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    sys.exit(main())
