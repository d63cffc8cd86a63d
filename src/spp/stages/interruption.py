"""Signals that ask a stage to stop: noted at once, obeyed where nothing is lost.

While a network trains, a signal waits for the next batch boundary, where a checkpoint is written first. At all
other times it is obeyed at once. What obeying means:

* SIGUSR2 belongs to submitit (SLURM sends it before the time limit and at preemption): its own handler has the job
  requeued and ends the process. Without submitit it is not touched.
* SIGTERM under submitit: go on until SLURM kills the process. One that exits inside the grace time of a preemption
  counts as failed instead of being requeued.
* SIGTERM elsewhere: exit with code 143.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

KILL_SECONDS = 600.0
"""How long a process whose job is being requeued waits for SLURM to kill it."""

_BY_WEIGHT = (signal.SIGTERM, signal.SIGUSR2)
"""SIGUSR2 wins where both came: it has the job requeued."""


class Interruptions:
    """The signals of this process.

    Attributes:
        handed_over: submitit's handler has been called. Whatever is raised from then on is no failure of the stage.
    """

    def __init__(self) -> None:
        self.handed_over = False
        self._pending = 0
        self._is_deferred = False
        self._requeue: Callable[[int, Any], Any] | None = None
        self._pid = os.getpid()

    @property
    def pending(self) -> int:
        """0: go on. Otherwise the number that `obey` takes; of several ranks' numbers the largest counts."""
        return self._pending

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals here; only the main thread can, in others this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = signal.getsignal(signal.SIGUSR2)
        self._requeue = owner if callable(owner) else None
        numbers = _BY_WEIGHT if self._requeue is not None else _BY_WEIGHT[:1]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals in here; whoever is in here asks `pending`. What is left is obeyed at the end."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._pending:
            self.obey(self._pending)

    def obey(self, pending: int, *, is_leader: bool = True) -> None:
        """Do what the signal asks for; returns where the process shall go on.

        Raises:
            SystemExit: where the process shall end.
        """
        if self._pending <= pending:  # a heavier one may have come while the checkpoint was written
            self._pending = 0
        if _BY_WEIGHT[pending - 1] == signal.SIGTERM:
            if self._requeue is None:
                raise SystemExit(128 + signal.SIGTERM)
        elif is_leader:
            self._hand_over()
        else:
            _wait_for_the_kill()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A forked helper process inherits the handler, but what it is told is not for the stage.
        if self.handed_over or os.getpid() != self._pid:
            return
        weight = _BY_WEIGHT.index(signal.Signals(number)) + 1
        if self._is_deferred:
            self._pending = max(self._pending, weight)
        else:
            self.obey(weight)

    def _hand_over(self) -> None:
        assert self._requeue is not None
        self.handed_over = True
        try:
            self._requeue(signal.SIGUSR2, None)
        except subprocess.CalledProcessError as error:
            if error.returncode < 0:  # the requeue was granted, and its SIGTERM hit scontrol before scontrol was done
                _wait_for_the_kill()
            raise
        except Exception as error:
            from submitit.core.utils import UncompletedJobError

            # The job has used up its restarts: this is its end, and somebody must be told.
            self.handed_over = not isinstance(error, UncompletedJobError)
            raise
        # On ranks other than the first it returns at once, and SLURM kills them with the first.
        self.handed_over = False


def _wait_for_the_kill() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(KILL_SECONDS)
    raise SystemExit(128 + signal.SIGTERM)
