"""A store that several people use, one that cannot be written, and a disk that is full."""

import errno
import os
import shutil
import stat
import tempfile
import traceback
from pathlib import Path

import pytest

from spp.plan.spec import Stage
from spp.store.atomic import append_line
from spp.store.claim import claim, unlock
from spp.store.store import Store

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
ALICE, BOB, GROUP = 4711, 4712, 4720


def as_user(uid, umask, work):
    """Call `work` in a process of another user, who is in GROUP; its exceptions are printed and fail the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(uid)
            os.umask(umask)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def shared():
    """A store in a folder of GROUP; pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="spp-shared-"))
    os.chown(folder, ALICE, GROUP)
    folder.chmod(0o2775)
    yield Store(folder / "store")
    shutil.rmtree(folder)


def do(store, stage):
    """The whole work on a stage; its artifact is written as safetensors writes: for its owner alone."""
    store.put_spec(stage)
    with claim(store, stage.kind, stage.key):
        work = store.begin(stage.kind, stage.key)
        (work / "parts").mkdir()
        for name in ("weights.bin", "parts/more.bin"):
            (work / name).write_text(f"weights of {os.getuid()}")
            (work / name).chmod(0o600)
        store.finish(stage.kind, stage.key, {"seconds": 1.0, "gpu_seconds": 0.0})


def break_off(store, stage):
    """A worker that fails in the middle of a stage."""
    store.put_spec(stage)
    with claim(store, stage.kind, stage.key):
        (store.begin(stage.kind, stage.key) / "weights.bin").touch()
        store.append_metrics(stage.kind, stage.key, {"loss": 1.0})
        store.fail(stage.kind, stage.key, "ValueError: broken")


@needs_root
def test_two_users_of_a_group_go_on_with_each_others_work(shared):
    dense = Stage("dense", {"n": 1})
    update = Stage("update", {"n": 2}, {"dense": dense})

    def read_and_go_on():
        assert shared.verify("dense", dense.key) == []
        assert shared.begin("dense", dense.key) is None
        do(shared, update)
        assert len(shared.recent_costs("update", 5)) == 1

    as_user(ALICE, 0o002, lambda: (do(shared, dense), break_off(shared, update)))
    as_user(BOB, 0o002, read_and_go_on)
    as_user(ALICE, 0o002, lambda: do(shared, Stage("update", {"n": 3})))
    assert shared.verify("update", update.key) == []
    assert (shared.artifacts_dir("update", update.key) / "weights.bin").read_text() == f"weights of {BOB}"
    assert len(shared.recent_costs("update", 5)) == 2


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_artifacts_follow_the_umask(store, umask, mode):
    stage = Stage("dense", {"n": 1})
    before = os.umask(umask)
    try:
        do(store, stage)
    finally:
        os.umask(before)
    folder = store.artifacts_dir("dense", stage.key)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {mode}


@needs_root
def test_what_is_done_can_be_read_where_nothing_can_be_written(shared):
    stage = Stage("dense", {"n": 1})

    def read():
        assert shared.is_done("dense", stage.key)
        assert shared.verify("dense", stage.key) == []
        assert shared.summary("dense", stage.key)["seconds"] == 1.0
        with pytest.raises(PermissionError):
            do(shared, Stage("dense", {"n": 2}))

    as_user(ALICE, 0o022, lambda: do(shared, stage))
    as_user(BOB, 0o022, read)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(tmp_path / "full", {"a": 1})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "full"))


def test_who_unlocks_needs_a_holder_that_may_be_gone(store, stage):
    folder = store.stage_dir(stage.kind, stage.key)
    with pytest.raises(ValueError, match=r"^STAGE: nobody holds "):
        unlock(folder)
    with claim(store, stage.kind, stage.key), pytest.raises(ValueError, match="which lives"):
        unlock(folder)
    (folder / "claim-7").write_text("{}")
    assert unlock(folder) is None
    with claim(store, stage.kind, stage.key):
        pass
