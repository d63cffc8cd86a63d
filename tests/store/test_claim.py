import json
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest

from spp.process import this_process
from spp.store.claim import (
    STALE_SECONDS,
    UNSIGNED_SECONDS,
    AlreadyClaimed,
    Holder,
    claim,
    holder_of,
    lock,
    release_dead,
    waiting_for,
)

# Claims all stages it can get, tells which, and holds them until its input ends.
GRAB_ALL = """
import contextlib, os, sys, time
from spp.store.claim import AlreadyClaimed, claim
from spp.store.store import Store
root, gate, *keys = sys.argv[1:]
print("ready", flush=True)
while not os.path.exists(gate):
    pass
with contextlib.ExitStack() as stack:
    won = []
    for key in keys:
        try:
            stack.enter_context(claim(Store(root), "update", key))
            won.append(key)
        except AlreadyClaimed:
            pass
    print(*won, flush=True)
    sys.stdin.read()
"""

# Enters one claim again and again, says "twice" if somebody living is inside as well; some die inside.
ENTER_OFTEN = """
import os, sys, time
from pathlib import Path
from spp.store.claim import AlreadyClaimed, claim
from spp.process import Process, is_alive, this_process
from spp.store.store import Store
root, dies_at = sys.argv[1], int(sys.argv[2])
store, inside = Store(root), Path(root) / "inside"
entered = 0
while entered < 15:
    try:
        with claim(store, "update", "0" * 20):
            entered += 1
            if inside.exists():
                other = Process.from_tag(inside.read_text())
                if other is None or is_alive(other):
                    print("twice", flush=True)
            inside.write_text(this_process().tag)
            time.sleep(0.002)
            if entered == dies_at:
                os._exit(0)
            inside.unlink()
    except AlreadyClaimed:
        time.sleep(0.001)
"""


@pytest.fixture
def folder(store, stage):
    return store.stage_dir(stage.kind, stage.key)


def claims_in(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("claim"))


def put_claim(folder, generation=1, age_seconds=0.0, job="", **process_changes):
    """A claim as a process of another machine would have left it."""
    process = replace(this_process(), **{"host": "elsewhere", "machine": "0badcafe", **process_changes})
    holder = Holder(process, job, 0, time.time() - age_seconds)
    path = folder / f"claim-{generation}"
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age_seconds, time.time() - age_seconds))
    return holder


def takes(store, stage, **options):
    try:
        with claim(store, stage.kind, stage.key, **options):
            return True
    except AlreadyClaimed:
        return False


def race(start, root, gate, keys, num_processes):
    """Which keys each of some processes got when all started at once; they hold them until the test ends."""
    processes = [start(GRAB_ALL, root, gate, *keys) for _ in range(num_processes)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * num_processes
    gate.touch()
    return [process.stdout.readline().split() for process in processes]


def test_of_racing_processes_exactly_one_gets_each_claim(store, tmp_path, start):
    keys = [f"{n:020x}" for n in range(40)]
    won = race(start, store.root, tmp_path / "gate", keys, 4)
    assert sorted(key for keys_won in won for key in keys_won) == keys


def test_of_racing_processes_exactly_one_takes_over_each_claim_of_a_killed_one(store, tmp_path, start):
    keys = [f"{n:020x}" for n in range(40)]
    (tmp_path / "first").touch()
    killed = start(GRAB_ALL, store.root, tmp_path / "first", *keys)
    assert killed.stdout.readline() == "ready\n"
    assert killed.stdout.readline().split() == keys
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    won = race(start, store.root, tmp_path / "gate", keys, 4)
    assert sorted(key for keys_won in won for key in keys_won) == keys


def test_never_two_inside_though_some_die_inside(store, start):
    store.root.mkdir()
    processes = [start(ENTER_OFTEN, store.root, dies_at) for dies_at in (4, 9, 0, 0)]
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert told == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4


def test_a_late_taker_does_not_break_into_what_happened_meanwhile(store, stage, folder):
    """B finds generation 1 dead; before it acts, A takes over and gives back, and C gets the claim."""
    put_claim(folder)
    dead = {"alive": lambda holder: False}
    with ExitStack() as stack:

        def meanwhile(holder):
            assert takes(store, stage, **dead)
            stack.enter_context(claim(store, stage.kind, stage.key))
            return False

        with pytest.raises(AlreadyClaimed) as caught:
            stack.enter_context(claim(store, stage.kind, stage.key, alive=meanwhile))
        assert caught.value.holder.process == this_process()
        assert claims_in(folder) == ["claim-3"]


def test_refusal_names_the_holder(store, stage, folder):
    put_claim(folder, job="88_3", pid=4711)
    with (
        pytest.raises(AlreadyClaimed, match=r"process 4711 on elsewhere, job 88_3"),
        claim(store, stage.kind, stage.key),
    ):
        pytest.fail("the claim of a living holder was given away")


def test_one_process_cannot_claim_twice_but_again(store, stage, folder):
    with claim(store, stage.kind, stage.key) as mine:
        assert not takes(store, stage)
        assert not mine.lost
    assert takes(store, stage)
    assert claims_in(folder) == ["claim-2.released"]


def test_claim_is_given_back_on_an_error_and_vanishes_when_done(store, stage, folder):
    with pytest.raises(RuntimeError, match="broken"), claim(store, stage.kind, stage.key):
        raise RuntimeError("broken")
    assert claims_in(folder) == ["claim-1.released"]
    with claim(store, stage.kind, stage.key):
        store.begin(stage.kind, stage.key)
        store.finish(stage.kind, stage.key, {})
    assert claims_in(folder) == []


def test_id_that_is_used_again_is_no_holder(store, stage, folder):
    put_claim(folder, machine=this_process().machine, start=this_process().start + 1)
    assert takes(store, stage)


def test_other_machine_is_judged_by_its_heartbeat(store, stage, folder):
    put_claim(folder, age_seconds=STALE_SECONDS - 100)
    assert not takes(store, stage)
    put_claim(folder, age_seconds=STALE_SECONDS + 100)
    assert takes(store, stage)


def test_other_machine_is_judged_by_who_knows_better(store, stage, folder):
    holder = put_claim(folder, age_seconds=STALE_SECONDS + 100)
    asked = []
    assert not takes(store, stage, alive=lambda h: asked.append(h) or True)
    assert asked == [holder]
    assert takes(store, stage, alive=lambda h: None)
    put_claim(folder, generation=3)
    assert not takes(store, stage, alive=lambda h: None)
    assert takes(store, stage, alive=lambda h: False)


@pytest.mark.parametrize(("job", "restarts", "taken"), [("7", 1, True), ("7", 0, False), ("8", 1, False)])
def test_earlier_run_of_the_same_slurm_job_is_dead(store, stage, folder, monkeypatch, job, restarts, taken):
    put_claim(folder, job="7")
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    assert takes(store, stage) == taken


def test_holder_tells_its_slurm_job(store, stage, folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1001")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "1000")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    with claim(store, stage.kind, stage.key):
        holder, alive = holder_of(folder, os.listdir(folder))
    assert alive
    assert (holder.job, holder.restarts, holder.process) == ("1000_4", 0, this_process())


def test_claim_that_is_just_being_written_counts_but_not_for_long(store, stage, folder):
    (folder / "claim-1").touch()
    assert holder_of(folder, os.listdir(folder)) == (None, True)
    assert not takes(store, stage)
    too_old = time.time() - UNSIGNED_SECONDS - 10
    os.utime(folder / "claim-1", (too_old, too_old))
    assert holder_of(folder, os.listdir(folder)) == (None, False)
    assert takes(store, stage)


def test_heart_beats_while_the_claim_is_held(store, stage, folder):
    with claim(store, stage.kind, stage.key, beat_seconds=0.02):
        os.utime(folder / "claim-1", (0, 0))
        deadline = time.monotonic() + 10
        while (folder / "claim-1").stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (folder / "claim-1").stat().st_mtime > time.time() - 60


def test_holder_learns_that_it_was_replaced_and_leaves_the_new_one_alone(store, stage, folder):
    with claim(store, stage.kind, stage.key, beat_seconds=0.02) as mine:
        put_claim(folder, generation=2)
        deadline = time.monotonic() + 10
        while not mine.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mine.lost
    holder, alive = holder_of(folder, os.listdir(folder))
    assert (holder.process.host, alive) == ("elsewhere", True)


def test_release_dead_gives_back_only_what_the_dead_hold(store, stage, folder):
    with claim(store, stage.kind, stage.key):
        release_dead(store, stage.kind, stage.key)
        assert claims_in(folder) == ["claim-1"]
    put_claim(folder, generation=2)
    release_dead(store, stage.kind, stage.key)
    assert claims_in(folder)[-1] == "claim-2"
    put_claim(folder, generation=3, machine=this_process().machine, start=this_process().start + 1)
    release_dead(store, stage.kind, stage.key)
    assert claims_in(folder)[-1] == "claim-3.released"
    assert holder_of(folder, os.listdir(folder)) == (None, False)


def test_release_dead_believes_slurm_about_jobs_of_other_machines(store, stage, folder):
    put_claim(folder, generation=1, job="12_3")
    for verdict in (True, None):
        release_dead(store, stage.kind, stage.key, lambda holder, verdict=verdict: verdict)
        assert claims_in(folder) == ["claim-1"]
    release_dead(store, stage.kind, stage.key, lambda holder: holder.job != "12_3")
    assert claims_in(folder) == ["claim-1.released"]


# Counts up a file under a lock, in a way that loses counts if two processes are in at once.
COUNT_UP = """
import sys, time
from pathlib import Path
from spp.store.claim import lock
folder, file = map(Path, sys.argv[1:])
for _ in range(5):
    with lock(folder, poll_seconds=0.01):
        number = int(file.read_text())
        time.sleep(0.01)
        file.write_text(str(number + 1))
"""


def test_a_lock_lets_in_one_process_at_a_time(tmp_path, start):
    (tmp_path / "number").write_text("0")
    processes = [start(COUNT_UP, tmp_path / "lock", tmp_path / "number") for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "15"


HOLD_LOCK = """
import sys
from pathlib import Path
from spp.store.claim import lock
with lock(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_lock_outlives_its_dead_holder(tmp_path, start):
    holder = start(HOLD_LOCK, tmp_path)
    assert holder.stdout.readline() == "in\n"
    holder.kill()
    holder.wait()
    with lock(tmp_path, poll_seconds=0.01):
        pass


@pytest.mark.parametrize(("age", "is_taken"), [(STALE_SECONDS - 100, False), (STALE_SECONDS + 100, True)])
def test_a_claim_is_as_old_as_the_file_server_says(age, is_taken, store, stage, folder, server_ahead):
    put_claim(folder, age_seconds=age - server_ahead)
    assert takes(store, stage) == is_taken


@pytest.mark.parametrize(("ahead", "is_taken"), [(STALE_SECONDS - 100, False), (STALE_SECONDS + 100, True)])
def test_a_beat_from_the_future_is_as_old_as_it_is_ahead(ahead, is_taken, store, stage, folder):
    put_claim(folder, age_seconds=-ahead)
    assert takes(store, stage) == is_taken


def test_a_machine_that_was_given_another_name_frees_its_dead_at_once(store, stage, folder):
    put_claim(folder, machine=this_process().machine, start=this_process().start + 1)
    assert takes(store, stage)
    put_claim(folder, generation=3, machine=this_process().machine)
    assert not takes(store, stage)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"age_seconds": 130, "job": "88_3", "pid": 4711},
            "process 4711 on elsewhere, job 88_3, for 2 min; its last sign of life is 2 min old, and it counts as gone "
            "in 8 min",
        ),
        (
            {"age_seconds": 10, "pid": 4711},
            "for 10 s; its last sign of life is 10 s old, and it counts as gone in 10 min",
        ),
        ({"age_seconds": 8000, "pid": 4711}, "for 2 h; its last sign of life is 2 h old, and it counts as gone in 0 s"),
        ({"machine": this_process().machine}, "for 0 s; it lives"),
        ({"machine": this_process().machine, "start": 1}, "for 0 s; it is gone"),
    ],
)
def test_who_waits_is_told_for_whom_how_long_and_how_to_free_it(changes, said, store, stage, folder):
    put_claim(folder, **changes)
    told = waiting_for(folder, stage.key)
    assert said in told
    assert told.endswith(f"; if you know better: spp unlock {stage.key}")
    assert "\n" not in told


def test_one_without_a_name_is_waited_for_a_minute(store, stage, folder):
    assert waiting_for(folder, stage.key) == ""
    (folder / "claim-1").touch()
    told = waiting_for(folder, stage.key)
    assert "a process without a name; its last sign of life is 0 s old, and it counts as gone in 60 s" in told
    free = f"a process without a name.*spp unlock {stage.key}"
    with pytest.raises(AlreadyClaimed, match=free), claim(store, stage.kind, stage.key):
        pass


def test_a_claim_that_a_full_disk_cuts_is_not_left(store, stage, folder, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        takes(store, stage)
    assert caught.value.filename == str(folder / "claim-1")
    assert claims_in(folder) == []
