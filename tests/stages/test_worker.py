"""Workers of one stage that meet."""

import gc
import shutil
import threading
import time
import weakref

import pytest

from spp.stages import context, fitting, worker
from spp.stages.checkpoint import CheckpointFile
from spp.stages.worker import run_stage
from spp.store.claim import AlreadyClaimed, claim


@pytest.fixture
def at_step_3(monkeypatch):
    """Let something happen while the stage trains."""
    boundary = fitting._Watch._boundary

    def install(act):
        def watched(self, trainer, num_batches):
            if num_batches == 3:
                act(self.run)
            boundary(self, trainer, num_batches)

        monkeypatch.setattr(fitting._Watch, "_boundary", watched)

    return install


def test_who_waits_for_the_holder_takes_over_when_it_is_gone(random_chain, tmp_path, monkeypatch):
    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    holds = threading.Event()

    def hold():
        with claim(store, "update", stage.key):
            holds.set()
            time.sleep(1.0)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    with pytest.raises(AlreadyClaimed):
        run_stage(store.root, "update", stage.key)
    run_stage(store.root, "update", stage.key, wait_for_holder=True)
    assert not thread.is_alive()
    stage.assert_same(store)


def test_who_has_lost_its_claim_stops_without_a_trace(random_chain, tmp_path, at_step_3):
    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    at_step_3(lambda run: setattr(run, "is_claim_lost", lambda looks: True))
    with pytest.raises(AlreadyClaimed):
        run_stage(store.root, "update", stage.key)
    assert store.failure("update", stage.key) is None
    assert not (store.stage_dir("update", stage.key) / "last.ckpt").exists()


def test_a_copy_that_is_too_late_to_save_leaves_what_the_other_has_finished(random_chain, tmp_path, at_step_3):
    stage = random_chain["update"]
    store = stage.again(tmp_path / "store", checkpoint_minutes=1e-9)
    folder, finished = store.stage_dir("update", stage.key), stage.store.stage_dir("update", stage.key)

    def finish(run):
        for name in ("last.ckpt", "progress.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "partial", ignore_errors=True)
        shutil.copytree(finished, folder, dirs_exist_ok=True)

    at_step_3(finish)
    with pytest.raises(AlreadyClaimed):
        run_stage(store.root, "update", stage.key)
    stage.assert_same(store)


@pytest.mark.parametrize(("has_ended", "progress_seconds"), [(True, 1e9), (False, 1e9), (False, 0.0)])
def test_a_copy_that_was_stopped_writes_nothing_where_its_successor_writes(
    has_ended, progress_seconds, random_chain, tmp_path, at_step_3, monkeypatch
):
    """It wakes up, and until its claim's next beat in a minute nobody tells it that it has a successor."""
    stage = random_chain["dense"]
    store = stage.again(tmp_path / "store")
    folder, finished = store.stage_dir("dense", stage.key), stage.store.stage_dir("dense", stage.key)
    monkeypatch.setattr(context, "PROGRESS_INTERVAL_SECONDS", progress_seconds)

    def take_over(run):
        (folder / "claim-1").rename(folder / "claim-2")
        (folder / "progress.json").unlink(missing_ok=True)
        shutil.copy(finished / "metrics.jsonl", folder)
        if has_ended:
            (folder / "claim-2").unlink()
            shutil.copytree(finished, folder, dirs_exist_ok=True)

    at_step_3(take_over)
    with pytest.raises(AlreadyClaimed):
        run_stage(store.root, "dense", stage.key)
    assert (folder / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert not (folder / "progress.json").exists()
    assert not (folder / "FAILED").exists()


def test_a_copy_that_ends_later_leaves_the_record_of_the_first(random_chain, tmp_path, monkeypatch):
    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    folder, finished = store.stage_dir("update", stage.key), stage.store.stage_dir("update", stage.key)
    run = worker._run

    def overtaken(stage_run):
        summary = run(stage_run)
        shutil.copytree(finished, folder, dirs_exist_ok=True)
        (folder / "metrics.jsonl").write_text('{"loss": 1}\n')
        return summary

    monkeypatch.setattr(worker, "_run", overtaken)
    run_stage(store.root, "update", stage.key)
    assert (folder / "metrics.jsonl").read_text() == '{"loss": 1}\n'


def test_a_checkpoint_is_in_memory_only_until_the_training_has_taken_it(
    random_chain, signals_at, tmp_path, monkeypatch
):
    class State(dict):
        """A dict that can be watched."""

    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    signals_at([4])
    with pytest.raises(SystemExit):
        run_stage(store.root, "update", stage.key)
    read, boundary = CheckpointFile.read, fitting._Watch._boundary
    states, alive = [], []

    def watched_read(self, path=None):
        state = State(read(self, path))
        states.append(weakref.ref(state))
        return state

    def watched(self, trainer, num_batches):
        gc.collect()
        alive.append(states[0]() is not None)
        boundary(self, trainer, num_batches)

    monkeypatch.setattr(CheckpointFile, "read", watched_read)
    monkeypatch.setattr(fitting._Watch, "_boundary", watched)
    run_stage(store.root, "update", stage.key)
    assert alive
    assert not any(alive)
    stage.assert_same(store)
