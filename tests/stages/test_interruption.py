import os
import signal
import subprocess
import sys

import pytest
from submitit.core.utils import UncompletedJobError

from spp.stages import interruption
from spp.stages.interruption import Interruptions


@pytest.fixture
def submitit():
    """A handler of SIGUSR2 such as submitit installs; what it was called with, and what it shall do."""

    class Handler:
        calls, action = 0, staticmethod(lambda: sys.exit(-1))

        def __call__(self, number, frame):
            self.calls += 1
            self.action()

    handler = Handler()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGUSR2, signal.SIGTERM)]
    signal.signal(signal.SIGUSR2, handler)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield handler
    for number, old in before:
        signal.signal(number, old)


def send(number):
    os.kill(os.getpid(), number)


def test_sigterm_acts_at_once_and_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR2)
    with pytest.raises(SystemExit, match="143"), Interruptions().handled():
        send(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR2)) == before


def test_a_deferred_signal_waits_for_the_end():
    reached, interruptions = [], Interruptions()

    def work():
        with interruptions.handled(), interruptions.deferred():
            send(signal.SIGTERM)
            reached.append(interruptions.pending)

    with pytest.raises(SystemExit, match="143"):
        work()
    assert reached == [1]


def test_under_submitit_sigterm_is_waited_out(submitit):
    interruptions = Interruptions()
    with interruptions.handled():
        send(signal.SIGTERM)
        with interruptions.deferred():
            send(signal.SIGTERM)
            interruptions.obey(interruptions.pending)
            assert interruptions.pending == 0
    assert submitit.calls == 0
    assert not interruptions.handed_over


def test_sigusr2_is_submitits_and_comes_before_sigterm(submitit):
    interruptions = Interruptions()

    def work():
        with interruptions.handled(), interruptions.deferred():
            send(signal.SIGUSR2)
            send(signal.SIGTERM)
            send(signal.SIGUSR2)
            assert submitit.calls == 0
            interruptions.obey(interruptions.pending)

    with pytest.raises(SystemExit, match="-1"):
        work()
    assert submitit.calls == 1
    assert interruptions.handed_over


def test_a_heavier_signal_is_not_forgotten_with_a_lighter_one(submitit):
    interruptions = Interruptions()

    def work():
        with interruptions.handled(), interruptions.deferred():
            send(signal.SIGTERM)
            seen = interruptions.pending
            send(signal.SIGUSR2)  # while the checkpoint is written
            interruptions.obey(seen)

    with pytest.raises(SystemExit, match="-1"):
        work()
    assert submitit.calls == 1


def test_a_signal_during_the_requeue_changes_nothing(submitit):
    def action():
        send(signal.SIGTERM)
        send(signal.SIGUSR2)
        sys.exit(-1)

    submitit.action = action
    with pytest.raises(SystemExit, match="-1"), Interruptions().handled():
        send(signal.SIGUSR2)
    assert submitit.calls == 1


@pytest.mark.parametrize(
    ("error", "is_no_failure"),
    [
        (UncompletedJobError("timed-out too many times"), False),
        (subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"]), True),
    ],
)
def test_what_the_requeue_raises_is_a_failure_only_if_there_will_be_no_restart(submitit, error, is_no_failure):
    def action():
        raise error

    submitit.action = action
    interruptions = Interruptions()
    with pytest.raises(type(error)), interruptions.handled():
        send(signal.SIGUSR2)
    assert interruptions.handed_over is is_no_failure


@pytest.mark.parametrize("is_leader", [True, False])
def test_who_is_about_to_be_killed_waits_for_it(submitit, is_leader, monkeypatch):
    """scontrol was hit by the SIGTERM of the requeue it had asked for; or another rank has asked."""

    def action():
        raise subprocess.CalledProcessError(-signal.SIGTERM, ["scontrol", "requeue", "7"])

    submitit.action = action
    monkeypatch.setattr(interruption, "KILL_SECONDS", 0.1)
    interruptions = Interruptions()

    def work():
        with interruptions.handled(), interruptions.deferred():
            send(signal.SIGUSR2)
            interruptions.obey(interruptions.pending, is_leader=is_leader)

    with pytest.raises(SystemExit, match="143"):
        work()
    assert submitit.calls == int(is_leader)


def test_a_forked_helper_does_not_act_on_what_it_is_told(submitit):
    with Interruptions().handled():
        child = os.fork()
        if child == 0:
            send(signal.SIGUSR2)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert submitit.calls == 0


def test_other_threads_handle_nothing():
    import threading

    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Interruptions().handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
