"""A stage that was stopped, however and wherever, ends as if nothing had happened."""

import signal
import subprocess
import sys
import time

import pytest

from spp.stages.checkpoint import PREVIOUS, CheckpointFile
from spp.stages.worker import run_stage
from spp.store.store import CHECKPOINT

# 14 batches an epoch (of update: 2 to calibrate), then the boundary behind them and 2 of the validation.
PLACES = {
    "dense": [0, 5, 16, 19, 30],  # before all, in the midst, behind the last batch, in validation, second epoch
    "update": [1, 3, 16],  # between the batches of the calibration, at its end, behind the last batch
    "prune": [4, 14, 17, 20, 33],
    "finetune": [13, 15, 18, 33],
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_requeued_stage_ends_as_the_undisturbed_one(kind, random_chain, signals_at, tmp_path):
    stage = random_chain[kind]
    store = stage.again(tmp_path / "store")
    calls, seen = signals_at(PLACES[kind])
    for _ in PLACES[kind]:
        with pytest.raises(SystemExit) as stopped:
            run_stage(store.root, kind, stage.key)
        assert stopped.value.code == -1
        assert (store.stage_dir(kind, stage.key) / CHECKPOINT).exists()
        assert store.failure(kind, stage.key) is None
    run_stage(store.root, kind, stage.key)
    assert len(calls) == len(PLACES[kind])
    stage.assert_same(store)
    # No batch was done twice: a boundary comes again only where it stopped, or in a validation.
    twice = [place for place in seen if place[1] < 14 and seen.count(place) > 1]
    assert len(twice) <= 2 * len(PLACES[kind])


def test_members_taken_before_the_stop_are_those_that_come_out(random_chain, signals_at, tmp_path):
    stage = random_chain["prune"]
    store = stage.again(tmp_path / "store")
    signals_at([30])
    with pytest.raises(SystemExit):
        run_stage(store.root, "prune", stage.key)
    (kept,) = (store.stage_dir("prune", stage.key) / "partial").glob("*.safetensors")
    digest = stage.store.done("prune", stage.key)["artifacts"]["member_0.8.safetensors"]["sha256"]
    assert kept.name == f"{digest}-member_0.8.safetensors"
    kept.write_bytes(b"torn")
    run_stage(store.root, "prune", stage.key)
    stage.assert_same(store)


def rewrite(store, kind, key, state, tmp_path):
    """Another state in the place of the checkpoint, whole as a file."""
    artifacts = tmp_path / "no artifacts"
    artifacts.mkdir()
    CheckpointFile(store.stage_dir(kind, key), state["spp"]["key"], artifacts).write(state)


@pytest.mark.parametrize("damage", ["cut", "empty", "other stage", "garbage", "other content"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(damage, random_chain, signals_at, tmp_path, caplog):
    import torch

    stage = random_chain["finetune"]
    store = stage.again(tmp_path / "store")
    signals_at([20])
    with pytest.raises(SystemExit):
        run_stage(store.root, "finetune", stage.key)
    path = store.stage_dir("finetune", stage.key) / CHECKPOINT
    state = torch.load(path, weights_only=True)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"nothing")
    elif damage == "other stage":
        state["spp"]["key"] = "0" * 20
        rewrite(store, "finetune", stage.key, state, tmp_path)
        (path.parent / "partial" / PREVIOUS).unlink()
    else:
        state["state_dict"].popitem()
        rewrite(store, "finetune", stage.key, state, tmp_path)
    run_stage(store.root, "finetune", stage.key)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("spp.")]
    assert "anew" in warning
    assert len(warning.splitlines()) == 1
    stage.assert_same(store)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, -1])
def test_one_flipped_bit_is_never_gone_on_from(place, random_chain, signals_at, tmp_path, caplog):
    stage = random_chain["finetune"]
    store = stage.again(tmp_path / "store")
    _, seen = signals_at([10, 20])
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_stage(store.root, "finetune", stage.key)
    path = store.stage_dir("finetune", stage.key) / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if place > 0 else place] ^= 4
    path.write_bytes(content)
    run_stage(store.root, "finetune", stage.key)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("spp.")]
    assert "its content is not what was written" in warning
    assert warning.endswith("the stage goes on from the checkpoint before")
    assert seen.count((0, 3)) == 1
    stage.assert_same(store)


def test_where_no_checkpoint_is_whole_the_stage_starts_anew(random_chain, signals_at, tmp_path, caplog):
    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    signals_at([3, 6])
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_stage(store.root, "update", stage.key)
    folder = store.stage_dir("update", stage.key)
    for path in (folder / CHECKPOINT, folder / "partial" / PREVIOUS):
        path.write_bytes(path.read_bytes()[:-1])
    run_stage(store.root, "update", stage.key)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("spp.")]
    assert warning.endswith("the stage starts anew")
    stage.assert_same(store)


def test_a_start_that_fails_for_another_reason_keeps_the_checkpoint(random_chain, signals_at, tmp_path, monkeypatch):
    from spp.data.images.module import ImageData

    def away(self):
        raise OSError("the file server is away")

    stage = random_chain["finetune"]
    store = stage.again(tmp_path / "store")
    _, seen = signals_at([20])
    with pytest.raises(SystemExit):
        run_stage(store.root, "finetune", stage.key)
    with monkeypatch.context() as broken:
        broken.setattr(ImageData, "train_dataloader", away)
        with pytest.raises(OSError, match="is away"):
            run_stage(store.root, "finetune", stage.key)
    assert "is away" in store.failure("finetune", stage.key)["error"]
    run_stage(store.root, "finetune", stage.key)
    assert seen.count((0, 3)) == 1
    stage.assert_same(store)


def test_code_that_has_done_a_part_is_told(random_chain, signals_at, tmp_path, caplog):
    import torch

    stage = random_chain["update"]
    store = stage.again(tmp_path / "store")
    signals_at([2, 5])
    with pytest.raises(SystemExit):
        run_stage(store.root, "update", stage.key)
    path = store.stage_dir("update", stage.key) / CHECKPOINT
    state = torch.load(path, weights_only=True)
    state["spp"]["codes"] = ["other"]
    rewrite(store, "update", stage.key, state, tmp_path)
    with pytest.raises(SystemExit):
        run_stage(store.root, "update", stage.key)
    run_stage(store.root, "update", stage.key)
    assert store.provenance("update", stage.key)["earlier_code"] == ["other"]
    assert "other code" in caplog.text
    stage.assert_same(store)


def worker(store, stage, **options):
    command = [sys.executable, "-m", "spp.stages.worker", str(store.root), stage.kind, stage.key]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "prune"])
def test_a_killed_worker_is_made_up_for_by_the_next(kind, random_chain, tmp_path):
    stage = random_chain[kind]
    store = stage.again(tmp_path / "store", checkpoint_minutes=0.1 / 60)
    checkpoint = store.stage_dir(kind, stage.key) / CHECKPOINT
    process = worker(store, stage)
    wait_for(checkpoint.exists)
    first = checkpoint.stat().st_ino
    wait_for(lambda: checkpoint.stat().st_ino != first)
    process.kill()
    process.communicate()
    assert not store.is_done(kind, stage.key)
    run_stage(store.root, kind, stage.key)
    stage.assert_same(store)


@pytest.mark.slow
def test_sigterm_saves_and_exits_143_and_twice_is_once(random_chain, tmp_path):
    stage = random_chain["dense"]
    store = stage.again(tmp_path / "store", num_workers=2)
    folder = store.stage_dir("dense", stage.key)
    process = worker(store, stage)
    wait_for((folder / "progress.json").exists)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert (folder / CHECKPOINT).exists()
    assert store.failure("dense", stage.key) is None
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".tmp")]
    assert (folder / "claim-1.released").exists()
    run_stage(store.root, "dense", stage.key)
    stage.assert_same(store)
