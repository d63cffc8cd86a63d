"""Processes that do stages: started anew, or forked by a server that has everything imported (spp.stages.serve)."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from spp.process import is_alive, process_of

CLOSE_SECONDS = 5.0
POLL_SECONDS = 0.01


class Worker(Protocol):
    """A process that does a stage. It leads a process group of its own."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs."""
        ...


class ServerGoneError(Exception):
    """The server has ended, and starts nothing any more."""


def start_worker(argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> Worker:
    """Start a process whose output goes to the end of `log`."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: the terminal's Ctrl-C shall reach the worker once, through this process.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )


def signal_group(worker: Worker, number: signal.Signals) -> None:
    """Signal a worker and all that it started, whether or not it lives itself."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, number)


class WorkerServer:
    """A running server (spp.stages.serve), from which workers are forked.

    It imports for seconds before it is `ready`. Once it is `gone`, start workers without it.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.ready = False
        self.gone = False
        self._exit_codes: dict[int, int] = {}
        self._started: list[int] = []
        self._unread = b""
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What makes it fail makes a stage that is started without it fail, too, and that has a log.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin.fileno()
        self._replies = self._process.stdout.fileno()
        os.set_blocking(self._replies, False)

    def poll(self) -> None:
        """Take note of what the server has said."""
        while not self.gone:
            try:
                received = os.read(self._replies, 1 << 16)
            except BlockingIOError:
                return
            self.gone = not received
            *lines, self._unread = (self._unread + received).split(b"\n")
            for line in lines:
                self._note(json.loads(line))

    def start(self, kind: str, key: str, log: Path, environment: Mapping[str, str]) -> Worker:
        """Fork a worker; to be called when the server is ready. Raises ServerGoneError if it has ended."""
        request = {"kind": kind, "key": key, "log": str(log), "environment": dict(environment)}
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise ServerGoneError from None
        while not self._started:
            self.poll()
            if self.gone:
                raise ServerGoneError
            time.sleep(POLL_SECONDS)
        return _ForkedWorker(self, self._started.pop())

    def exit_code(self, pid: int) -> int | None:
        """Exit code of a worker that has ended; None as long as nothing is known of its end."""
        self.poll()
        return self._exit_codes.get(pid)

    def close(self) -> None:
        """End the server; its workers are not touched."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(CLOSE_SECONDS if self.ready else 0)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _note(self, reply: Mapping[str, Any]) -> None:
        if "ready" in reply:
            self.ready = True
        elif "started" in reply:
            self._started.append(reply["started"])
        else:
            self._exit_codes[reply["ended"]] = reply["code"]


class _ForkedWorker:
    """A worker that is not this process's child, so that the server has to tell of its end."""

    def __init__(self, server: WorkerServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._process = process_of(pid)

    def poll(self) -> int | None:
        code = self._server.exit_code(self.pid)
        if code is None and self._server.gone:
            # Nobody would learn how it ends.
            signal_group(self, signal.SIGKILL)
            return None if is_alive(self._process) else -signal.SIGKILL
        return code
