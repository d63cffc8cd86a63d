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

from spp.schedule.workers import WorkerServer, signal_group
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


# The server of workers; one of them may be told to break at a place.
SERVER = """
import os, sys
from spp.stages import serve, worker

def boom(*args, **options):
    raise RuntimeError("planted")

def main(work=worker.main):
    from spp.data.images.module import ImageData
    from spp.stages import fitting
    place = os.environ.get("PLANTED")
    if place == "open":
        ImageData.__init__ = boom
    elif place == "step":
        fitting.Trainable.on_before_optimizer_step = boom
    return work()

worker.main = main
sys.exit(serve.main())
"""


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """Starts ranks without waiting for their imports: forks of a process that has them.

    fork(store, stage, log, environments): one worker for each of these environments.
    """
    link = tmp_path_factory.mktemp("server") / "store"
    server = WorkerServer([sys.executable, "-c", SERVER, str(link)])

    def start(store, stage, log, environments):
        link.unlink(missing_ok=True)
        link.symlink_to(store.root)
        return [server.start(stage.kind, stage.key, log, environment) for environment in environments]

    def is_ready():
        server.poll()
        return server.ready

    wait_until(is_ready)
    yield start
    server.close()


@pytest.fixture
def ranks(fork, tmp_path):
    """Two ranks as torchrun gives them, to their end; what they say."""

    def run(store, stage):
        log = tmp_path / "log"
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
        common |= {"TORCHELASTIC_RUN_ID": "forked"}
        workers = fork(store, stage, log, [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "10"])
        assert [exit_code(worker) for worker in workers] == [0, 0], log.read_text()
        return log.read_text()

    return run


@pytest.fixture
def srun(fork):
    """srun(store, stage, log, planted): two tasks as srun gives them; planted[rank] is the place where it breaks."""

    def start(store, stage, log, planted=None):
        common = {
            "SLURM_JOB_ID": str(1000 + os.getpid() % 9000),
            "SLURM_JOB_NAME": "spp",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
        }
        common |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "n1", "MASTER_ADDR": "127.0.0.1"}
        tasks = ({**common, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01")
        planted = planted or {}
        return fork(store, stage, log, [{**task, "PLANTED": planted.get(rank, "")} for rank, task in enumerate(tasks)])

    return start


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def exit_code(worker):
    """Its exit code, once it has ended."""
    wait_until(lambda: worker.poll() is not None)
    return worker.poll()


def wait_until(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["dense", "update", "prune", "measure"])
def test_two_processes_do_what_one_does(kind, plain_chain, tmp_path, ranks):
    stage = plain_chain[kind]
    store = stage.again(tmp_path / "store", devices=2)
    if kind == "dense":
        finish(torchrun(store, stage))
    else:
        ranks(store, stage)
    assert_close(stage, store)
    left = {path.name for path in store.stage_dir(kind, stage.key).iterdir()}
    assert left == {"spec.json", "provenance.json", "metrics.jsonl", "summary.json", "artifacts", "DONE"}


def test_tasks_of_srun_find_each_other(plain_chain, tmp_path, srun):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    log = tmp_path / "log"
    assert [exit_code(task) for task in srun(store, stage, log)] == [0, 0], log.read_text()
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


def test_two_processes_stop_together_and_go_on_together(plain_chain, tmp_path, ranks):
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
    ranks(store, stage)
    assert_close(stage, store)


@pytest.mark.parametrize("left", [(), ("previous",)])
def test_a_checkpoint_of_other_code_is_passed_over_by_all(left, plain_chain, signals_at, tmp_path, ranks):
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
    output = ranks(store, stage)
    then = "goes on from the checkpoint before" if left else "starts anew"
    assert output.count("does not fit the stage") == output.count(then) == 1, output
    assert "Traceback" not in output
    assert_close(stage, store)


@pytest.mark.parametrize(("rank", "place"), [(0, "open"), (1, "step")])
def test_what_ended_one_rank_is_what_the_stage_failed_of(rank, place, plain_chain, tmp_path, srun):
    stage = plain_chain["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    log = tmp_path / "log"
    tasks = srun(store, stage, log, {rank: place})
    broken, other = tasks[rank], tasks[1 - rank]
    assert exit_code(broken) == 1, log.read_text()
    if place == "open":
        signal_group(other, signal.SIGKILL)  # it waits for the other one; srun ends it (--kill-on-bad-exit)
    assert exit_code(other) != 0, log.read_text()
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


def test_two_processes_train_a_new_head_as_well(own_classes, tmp_path, ranks):
    stage = own_classes["dense"]
    store = stage.again(tmp_path / "store", devices=2)
    ranks(store, stage)
    assert store.verify("dense", stage.key) == []
    assert store.summary("dense", stage.key)["epochs"] == 2
