"""Two processes that share every batch, against one that has all of it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from spp.schedule.workers import WorkerServer
from spp.stages.checkpoint import PREVIOUS, CheckpointFile
from spp.stages.worker import run_stage
from spp.store.atomic import read_lines, require_json, write_json
from spp.store.store import CHECKPOINT, PARTIAL, Store

pytestmark = pytest.mark.slow


def torchrun(store, stage):
    worker = ["-m", "spp.stages.worker", str(store.root), stage.kind, stage.key]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    return subprocess.Popen(
        [*command, "--nproc-per-node=2", *worker],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def srun(store, stage, start=("-m", "spp.stages.worker")):
    """What srun gives two tasks of one node; rank 1 first."""
    command = [sys.executable, *start, str(store.root), stage.kind, stage.key]
    common = {
        "SLURM_JOB_ID": str(1000 + os.getpid() % 9000),
        "SLURM_JOB_NAME": "spp",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
    }
    common |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "n1", "MASTER_ADDR": "127.0.0.1"}
    tasks = [
        subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **common, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in ("1", "0")
    ]
    return tasks


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def values_of(summary):
    """The metrics of a training on the validation split, or all those of a measuring."""
    splits = summary.get("metrics", {"val": summary.get("val", {})})
    return {f"{split} {name}": metric["value"] for split, metrics in splits.items() for name, metric in metrics.items()}


def assert_close(stage, store):
    kind, key = stage.kind, stage.key
    assert store.verify(kind, key) == []
    expected, actual = (read_lines(which.stage_dir(kind, key) / "metrics.jsonl") for which in (stage.store, store))
    assert len(actual) == len(expected)
    for row, other in zip(actual, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    summary, other = store.summary(kind, key), stage.store.summary(kind, key)
    values, others = (values_of(which) for which in (summary, other))
    assert values == pytest.approx(others, rel=1e-4)
    for file in stage.store.artifacts_dir(kind, key).glob("*.safetensors"):
        weights, others = load_file(store.artifacts_dir(kind, key) / file.name), load_file(file)
        for name, value in others.items():
            # Adam divides by the root of tiny second moments, which multiplies the last bits of the first steps.
            assert weights[name].double().numpy() == pytest.approx(value.double().numpy(), rel=1e-2, abs=1e-3), name


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Starts two ranks as torchrun does, without waiting for their imports: forks of a process that has them."""
    link, log = tmp_path_factory.mktemp("server") / "store", tmp_path_factory.mktemp("logs") / "log"
    server = WorkerServer([sys.executable, "-m", "spp.stages.serve", str(link)])

    def start(store, stage):
        link.unlink(missing_ok=True)
        link.symlink_to(store.root)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "GROUP_RANK": "0"}
        common |= {"TORCHELASTIC_RUN_ID": "forked"}
        workers = [
            server.start(stage.kind, stage.key, log, {**common, "RANK": rank, "LOCAL_RANK": rank}) for rank in "10"
        ]
        wait_until(lambda: all(worker.poll() is not None for worker in workers))
        assert [worker.poll() for worker in workers] == [0, 0], log.read_text()

    def is_ready():
        server.poll()
        return server.ready

    wait_until(is_ready)
    yield start
    server.close()


def wait_until(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["dense", "update", "prune", "measure"])
def test_two_processes_do_what_one_does(kind, plain_chain, tmp_path, request):
    stage = plain_chain[kind]
    store = stage.again(tmp_path / "store", devices=2)
    if kind == "dense":
        finish(torchrun(store, stage))
    else:
        request.getfixturevalue("ranks")(store, stage)
    assert_close(stage, store)
    left = {path.name for path in store.stage_dir(kind, stage.key).iterdir()}
    assert left == {"spec.json", "provenance.json", "metrics.jsonl", "summary.json", "artifacts", "DONE"}


def test_tasks_of_srun_find_each_other(plain_chain, tmp_path):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    for task in srun(store, stage):
        finish(task)
    assert_close(stage, store)


def test_a_stage_that_is_done_lets_all_ranks_go(plain_chain, tmp_path, ranks):
    stage = plain_chain["dense"]
    store = Store(shutil.copytree(stage.store.root, tmp_path / "store"))
    file = store.stage_dir("dense", stage.key) / "spec.json"
    spec = require_json(file)
    spec["runtime"]["devices"] = 2
    write_json(file, spec)
    ranks(store, stage)
    assert store.done("dense", stage.key) == stage.store.done("dense", stage.key)


def test_two_processes_stop_together_and_go_on_together(plain_chain, tmp_path):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    folder = store.stage_dir("dense", stage.key)
    process = torchrun(store, stage)
    wait_until((folder / "progress.json").exists)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0, output
    assert (folder / CHECKPOINT).exists(), output
    assert not store.is_done("dense", stage.key)
    assert store.failure("dense", stage.key) is None, output
    finish(torchrun(store, stage))
    assert_close(stage, store)


@pytest.mark.parametrize("left", [(), ("previous",)])
def test_a_checkpoint_of_other_code_is_passed_over_by_all(left, plain_chain, signals_at, tmp_path):
    """The last checkpoint has a weight too few, as one of code with another network; the one before may fit."""
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store")
    signals_at([3, 8])
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_stage(store.root, "dense", stage.key)
    spec = store.spec("dense", stage.key)
    spec["runtime"]["devices"] = 2
    folder = store.stage_dir("dense", stage.key)
    write_json(folder / "spec.json", spec)
    previous = (folder / PARTIAL / PREVIOUS).read_bytes()
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    state["state_dict"].popitem()
    (tmp_path / "artifacts").mkdir()
    CheckpointFile(folder, stage.key, tmp_path / "artifacts").write(state)
    if left:
        (folder / PARTIAL / PREVIOUS).write_bytes(previous)
    else:
        (folder / PARTIAL / PREVIOUS).unlink()
    process = torchrun(store, stage)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    then = "goes on from the checkpoint before" if left else "starts anew"
    assert output.count("does not fit the stage") == output.count(then) == 1, output
    assert "Traceback" not in output
    assert_close(stage, store)


PLANTED = """
import os, sys
from spp.data.images.module import ImageData
from spp.stages import fitting, worker

def boom(*args, **options):
    raise RuntimeError("planted")

if os.environ["SLURM_PROCID"] == sys.argv.pop(1):
    if sys.argv.pop(1) == "open":
        ImageData.__init__ = boom
    else:
        fitting.Trainable.on_before_optimizer_step = boom
else:
    sys.argv.pop(1)
sys.exit(worker.main())
"""


@pytest.mark.parametrize(("rank", "place"), [(0, "open"), (1, "step")])
def test_what_ended_one_rank_is_what_the_stage_failed_of(rank, place, plain_chain, tmp_path):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    tasks = srun(store, stage, ("-c", PLANTED, str(rank), place))
    broken, other = tasks[1 - rank], tasks[rank]
    output, _ = broken.communicate(timeout=200)
    assert broken.returncode == 1, output
    if place == "open":
        other.kill()  # it waits for the other one; srun ends it (--kill-on-bad-exit)
    output, _ = other.communicate(timeout=200)
    assert other.returncode != 0, output
    assert store.failure("dense", stage.key)["error"] == "RuntimeError: planted"


def test_one_process_is_not_enough_for_a_stage_of_two(plain_chain, tmp_path):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    with pytest.raises(RuntimeError, match=r"wants 2 processes .*dense\.tasks_per_node=1"):
        run_stage(store.root, "dense", stage.key)
    assert store.failure("dense", stage.key) is not None


def test_variables_of_slurm_do_not_touch_a_stage_of_one_process(plain_chain, tmp_path, monkeypatch):
    for name, value in {"JOB_ID": 9, "JOB_NAME": "x", "NTASKS": 2, "PROCID": 0, "NTASKS_PER_NODE": 2}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    stage = plain_chain["update"]
    store = stage.again(tmp_path / "store")
    run_stage(store.root, "update", stage.key)
    stage.assert_same(store)


def test_two_processes_train_a_new_head_as_well(own_classes, tmp_path):
    stage = own_classes["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    finish(torchrun(store, stage))
    assert store.verify("dense", stage.key) == []
    assert store.summary("dense", stage.key)["epochs"] == 2
