import threading
from typing import ClassVar

import pytest

from spp.stages import measure
from spp.stages.ranks import Meeting, NotLeaderError, Ranks, find_ranks

TWO = {"srun": ("SLURM_PROCID", "SLURM_NTASKS"), "torchrun": ("RANK", "WORLD_SIZE")}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for names in TWO.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("launcher", TWO)
def test_who_one_is_stands_in_the_launchers_variables(launcher, monkeypatch):
    for name, value in zip(TWO[launcher], ("1", "2"), strict=True):
        monkeypatch.setenv(name, value)
    assert find_ranks(2) == Ranks(1, 2, launcher)
    assert not find_ranks(2).is_leader
    assert find_ranks(1) == find_ranks(4) == Ranks()


def test_torchrun_within_an_allocation_is_torchruns(monkeypatch):
    for names, values in (((TWO["srun"]), ("0", "2")), (TWO["torchrun"], ("1", "2"))):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
    assert find_ranks(2) == Ranks(1, 2, "torchrun")


def test_starts_of_a_slurm_job_have_names_of_their_own(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    first, other = Ranks(0, 2, "srun").name, Ranks(1, 2, "srun").name
    assert first == other == "12_3-0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert Ranks(0, 2, "srun").name == "12_3-1"


def heard(folder, act, seconds=60.0):
    """What another rank hears while the first one acts."""
    leader, other = (Meeting(folder, Ranks(rank, 2, "torchrun")) for rank in (0, 1))
    leader.open()
    answer = []
    thread = threading.Thread(target=lambda: answer.append(other.hear(seconds)))
    thread.start()
    act(leader)
    thread.join(timeout=90)
    leader.close()
    return answer[0]


def test_there_is_work(tmp_path):
    assert heard(tmp_path, lambda leader: leader.go(None)) == (True, None)
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_do(tmp_path):
    assert heard(tmp_path, lambda leader: leader.close()) == (False, None)


def test_all_go_on_from_the_same_checkpoint_whoever_writes_the_next(tmp_path):
    checkpoint, copies = tmp_path / "last.ckpt", []

    def act(leader):
        checkpoint.write_bytes(b"old")
        pinned = leader.pin(checkpoint)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(checkpoint)
        copies.append(pinned.read_bytes())
        leader.go(pinned)

    has_work, path = heard(tmp_path, act)
    assert has_work
    assert path is not None
    assert copies == [b"old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_first_rank_that_waits_keeps_the_others_waiting(tmp_path):
    def act(leader):
        import time

        for _ in range(5):
            leader.wait()
            time.sleep(0.2)
        leader.go(None)

    assert heard(tmp_path, act, seconds=0.5) == (True, None)


def test_who_comes_when_all_is_done_does_not_wait(tmp_path):
    leader, other = (Meeting(tmp_path, Ranks(rank, 2, "torchrun")) for rank in (0, 1))
    leader.open()
    leader.go(None)
    (tmp_path / "DONE").write_text("{}")
    leader.close()
    assert other.hear(0.5) == (False, None)


def test_no_word_is_an_error(tmp_path):
    with pytest.raises(TimeoutError, match="rank 1: rank 0 gave no word"):
        Meeting(tmp_path, Ranks(1, 2, "torchrun")).hear(0.3)


def test_what_earlier_starts_left_is_removed(tmp_path):
    (tmp_path / "ranks-7-0.json").write_text("{}")
    (tmp_path / "ranks-7-0.ckpt").write_text("")
    assert heard(tmp_path, lambda leader: leader.go(None)) == (True, None)
    assert list(tmp_path.iterdir()) == []


def test_alone_nothing_is_written(tmp_path):
    meeting = Meeting(tmp_path, Ranks())
    meeting.open()
    meeting.wait()
    assert meeting.pin(tmp_path / "last.ckpt") == tmp_path / "last.ckpt"
    meeting.go(None)
    meeting.close()
    assert list(tmp_path.iterdir()) == []


def test_measuring_is_left_to_the_first_rank():
    class Follower:
        config: ClassVar = {}

        def leave_to_leader(self):
            raise NotLeaderError

    with pytest.raises(NotLeaderError):
        measure.run(Follower())
