"""`cluster=local`: a queue of processes on this machine, with slots for GPUs."""

import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.schedule.events import Observe, Outcome
from spp.schedule.ledger import Ledger
from spp.schedule.workers import ServerGoneError, Worker, WorkerServer, signal_group, start_worker
from spp.store.claim import EXIT_CLAIMED, release_dead
from spp.store.store import Store

POLL_SECONDS = 0.05
GRACE_SECONDS = 10.0

_LOG_TAIL_BYTES = 4000

Command = Callable[[str, str], list[str]]
"""The worker's argv for (kind, key). The worker leaves a marker or ends with EXIT_CLAIMED."""


@dataclass(frozen=True)
class _Child:
    stage: Stage
    worker: Worker
    gpus: tuple[str, ...]
    log: Path


def run_local(
    plan: Plan,
    store: Store,
    *,
    command: Command,
    server: Sequence[str] = (),
    max_parallel: int,
    gpu_ids: Sequence[str],
    observe: Observe,
    wait_seconds: float = 1.0,
    grace_seconds: float = GRACE_SECONDS,
) -> Outcome:
    """Run a plan by at most `max_parallel` workers at once; a failed stage blocks only what needs it.

    Each stage has a worker of its own. `server` is the argv of a process that forks workers (spp.stages.serve): it
    imports once what every worker needs. A stage of several processes, and any stage where `server` is empty or has
    ended, gets its worker by `command`.

    A stage takes as many of `gpu_ids` as `resources["gpus_per_node"]` says (none if it says nothing) and sees only
    them, by CUDA_VISIBLE_DEVICES. A worker's output goes to the stage's logs/. What another process works on
    is awaited, with a look every `wait_seconds`. On Ctrl-C, SIGTERM and SIGHUP the workers get SIGTERM, after
    `grace_seconds` or another signal SIGKILL, and then KeyboardInterrupt or SystemExit is raised; the same
    call goes on later.

    Raises ValueError, before anything starts, if `max_parallel` is below 1 or a stage asks for more GPUs than
    there are.
    """
    _check(plan, max_parallel, gpu_ids)
    queue = _Queue(store, command, server, list(gpu_ids))
    ledger = Ledger(plan, store, observe, wait_seconds)
    with _noted_signals() as signals:
        try:
            while True:
                _leave_on(signals)
                ledger.poll()
                queue.reap(ledger)
                queue.fill(ledger, max_parallel)
                if not queue.children and not ledger.ready() and not ledger.waits:
                    return ledger.outcome()
                time.sleep(POLL_SECONDS)
        finally:
            queue.stop(grace_seconds, signals)


class _Queue:
    """The running workers and the GPUs that are free."""

    def __init__(self, store: Store, command: Command, server: Sequence[str], gpus: list[str]) -> None:
        self._store = store
        self._command = command
        self._server_argv = server
        self._server: WorkerServer | None = None
        self._free = gpus
        self.children: list[_Child] = []

    def fill(self, ledger: Ledger, max_parallel: int) -> None:
        """Start ready stages while there is room for them."""
        starved = False
        for stage in ledger.ready():
            if len(self.children) >= max_parallel or not self._can_start(stage):
                return
            num_gpus = _num_gpus(stage)
            # GPUs are not given past a stage that waits for several of them, or it would wait to the end.
            if num_gpus > 0 and (starved or num_gpus > len(self._free)):
                starved = True
            else:
                self._start(stage, ledger, num_gpus)

    def reap(self, ledger: Ledger) -> None:
        """Take note of the workers that have ended."""
        for child in list(self.children):
            code = child.worker.poll()
            if code is None:
                continue
            self._drop(child)
            stage = child.stage
            if code == EXIT_CLAIMED and not self._store.is_done(stage.kind, stage.key):
                ledger.wait(stage, "another process")
            else:
                ledger.settle(stage, f"{_tail(child.log)}\n{_describe(code)}; see {child.log}")

    def stop(self, grace_seconds: float, signals: list[int]) -> None:
        """End the workers that still run, each with all that it started; another signal ends the grace."""
        ended_here = [child for child in self.children if child.worker.poll() is None]
        for child in ended_here:
            signal_group(child.worker, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        num_signals = len(signals)
        while any(child.worker.poll() is None for child in self.children):
            if time.monotonic() > deadline or len(signals) > num_signals:
                break
            time.sleep(POLL_SECONDS)
        for child in list(self.children):
            signal_group(child.worker, signal.SIGKILL)
            while child.worker.poll() is None:
                time.sleep(POLL_SECONDS)
            self._drop(child)
        if self._server is not None:
            self._server.close()
        for child in ended_here:
            # A worker may take its end for a failure and say so.
            self._store.clear_failed(child.stage.kind, child.stage.key)

    def _start(self, stage: Stage, ledger: Ledger, num_gpus: int) -> None:
        logs = self._store.logs_dir(stage.kind, stage.key)
        log = logs / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}.log"
        if not ledger.start(stage, str(log)):
            return
        logs.mkdir(parents=True, exist_ok=True)
        gpus, self._free = self._free[:num_gpus], self._free[num_gpus:]
        worker = self._start_worker(stage, log, {"CUDA_VISIBLE_DEVICES": ",".join(gpus)})
        self.children.append(_Child(stage, worker, tuple(gpus), log))

    def _can_start(self, stage: Stage) -> bool:
        """Whether a worker can be started without waiting for the server, which is started where it is of use."""
        if not self._server_argv or _num_processes(stage) > 1:
            return True
        if self._server is None:
            self._server = WorkerServer(self._server_argv)
        self._server.poll()
        return self._server.ready or self._server.gone

    def _start_worker(self, stage: Stage, log: Path, environment: dict[str, str]) -> Worker:
        if self._server is not None and not self._server.gone and _num_processes(stage) == 1:
            with suppress(ServerGoneError):
                return self._server.start(stage.kind, stage.key, log, environment)
        return start_worker(self._command(stage.kind, stage.key), log, environment)

    def _drop(self, child: _Child) -> None:
        self.children.remove(child)
        self._free.extend(child.gpus)
        release_dead(self._store, child.stage.kind, child.stage.key)


def _check(plan: Plan, max_parallel: int, gpu_ids: Sequence[str]) -> None:
    if max_parallel < 1:
        raise ValueError(f"max_parallel: {max_parallel} is not allowed: must be >= 1; use 1 for one stage at a time")
    for stage in plan.stages.values():
        if _num_gpus(stage) > len(gpu_ids):
            here = ",".join(gpu_ids) or "none"
            raise ValueError(
                f"resources.gpus_per_node: {_num_gpus(stage)} is not allowed for {stage.label or stage.kind}: must be "
                f"<= {len(gpu_ids)} (GPUs here: {here}); lower it or use another cluster"
            )


def _num_gpus(stage: Stage) -> int:
    return int(stage.resources.get("gpus_per_node") or 0)


def _num_processes(stage: Stage) -> int:
    return int(stage.runtime.get("devices", 1))


def _describe(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code} and without a marker"
    name = next((number.name for number in signal.Signals if number == -code), f"signal {-code}")
    return f"the worker was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """The signals to leave on, as they come in."""
    # Noted rather than raised, because an exception between a worker's start and the note of it loses it.
    noted: list[int] = []
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What is ignored (SIGHUP under nohup) stays so; None is a handler that Python cannot put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, lambda received, frame: noted.append(received))
    try:
        yield noted
    finally:
        for restored, handler in previous.items():
            signal.signal(restored, handler)


def _leave_on(signals: list[int]) -> None:
    if signal.SIGINT in signals:
        raise KeyboardInterrupt
    if signals:
        sys.exit(128 + signals[0])
