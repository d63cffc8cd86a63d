"""Whatever happens to a stage while it trains, it ends with the weights of an undisturbed one."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spp.schedule.slurm import live_of
from spp.store.atomic import read_lines
from spp.store.claim import Holder, holder_of
from spp.store.store import CHECKPOINT, Store

WORDS = ["debug=fast", "data.num_train=300", "dense.batch_size=32", "dense.epochs=40", "dense.warmup_epochs=1"]
"""8 batches an epoch, with noise and stochastic depth: many random numbers whose order counts."""

PLAIN = [*WORDS[:3], "dense.epochs=4", "dense.drop_path=0", "dense.input_noise=0"]
"""No random numbers within a batch: processes that see different images cannot draw the same ones."""


class Training:
    """One dense stage on the cluster."""

    def __init__(self, sweeps, queue, *words: str) -> None:
        self.store: Store = sweeps.store
        self.queue = queue
        self.key: str = sweeps.run_only("dense", *words, *sweeps.words)
        self.sweep: str = self.store.latest() or ""
        self._sweeps = sweeps

    @property
    def job(self) -> str:
        """Its newest job."""
        return live_of(self.store, self.sweep).jobs[self.key].job

    @property
    def checkpoint(self) -> Path:
        return self.store.stage_dir("dense", self.key) / CHECKPOINT

    def reach(self, epochs: float = 0.1) -> None:
        """Waits until a living process has trained it so far."""
        self.queue.until(lambda: self._epochs() >= epochs, timeout_s=180)

    def settle(self) -> str:
        """Waits until it has ended; its state."""
        return self._sweeps.settled(self.sweep)[self.key]

    def holder(self) -> Holder | None:
        """The living process that works on it."""
        folder = self.store.stage_dir("dense", self.key)
        holder, is_alive = holder_of(folder, os.listdir(folder))
        return holder if is_alive else None

    def _epochs(self) -> float:
        assert not self.store.is_done("dense", self.key), "it ended before its mishap"
        holder, progress = self.holder(), self.store.read_progress("dense", self.key)
        return progress.done if holder and progress and progress.time > holder.since else 0.0

    def assert_same_as(self, other: Store) -> None:
        """The same artifacts to the bit and the same record; no failure, no checkpoint left."""
        assert self.store.done("dense", self.key)["artifacts"] == other.done("dense", self.key)["artifacts"]
        rows, others = (store.stage_dir("dense", self.key) / "metrics.jsonl" for store in (self.store, other))
        assert rows.read_bytes() == others.read_bytes()
        left = {path.name for path in self.store.stage_dir("dense", self.key).iterdir()}
        assert not left & {CHECKPOINT, "FAILED", "partial"}


@pytest.fixture(scope="session")
def undisturbed(made_once, make_sweeps):
    """Stores in which the dense stage of some words was done in one process; once for all test processes."""

    def of(*words: str) -> Store:
        def make(root: Path) -> None:
            make_sweeps(root).run_only("dense", *words, "logger=off", "accelerator=cpu")

        return Store(made_once(f"undisturbed-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}", make))

    return of


# A stage that has gone on once can be preempted again, on the real one.
REAL = pytest.param("real", (2, 7), marks=pytest.mark.slurm)


@pytest.mark.slow
@pytest.mark.parametrize(("queue", "places"), [("fake", (5,)), REAL], indirect=["queue"], ids=["fake", "real"])
def test_preempted_once_or_twice(queue, places, sweeps, undisturbed):
    stage = Training(sweeps, queue, *WORDS)
    job = stage.job
    for epochs in places:
        stage.reach(epochs)
        queue.run("scancel", "--signal=USR2", job)
        queue.until(lambda: queue.rows()[job][0] == "PENDING")
        assert stage.checkpoint.exists()
    assert stage.settle() == "done"
    assert stage.job == job
    stage.assert_same_as(undisturbed(*WORDS))


@pytest.mark.slow
@pytest.mark.slurm
def test_requeued_by_hand_cancelled_and_killed(slurm, commands, sweeps, undisturbed):
    """One after the other: scontrol requeue, spp cancel and retry, SIGKILL and the retry that nobody asks for."""
    stage = Training(sweeps, commands, *WORDS, "cluster.num_retries=1", "cluster.backoff_min=0.01")
    stage.reach(2)
    first = stage.job
    commands.run("scontrol", "requeue", first)
    commands.until(lambda: commands.rows()[first][0] == "PENDING")
    assert stage.checkpoint.exists()

    stage.reach(2)
    assert stage.job == first
    assert sweeps.spp("cancel", stage.sweep) == 0
    assert stage.settle() == "cancelled"
    assert sweeps.spp("retry", stage.sweep) == 0

    stage.reach(2)
    second, holder = stage.job, stage.holder()
    assert second != first
    assert holder is not None
    os.kill(holder.process.pid, signal.SIGKILL)
    commands.expect({second: "FAILED"})
    commands.until(lambda: stage.job != second)
    assert stage.settle() == "done"
    stage.assert_same_as(undisturbed(*WORDS))


@pytest.mark.slow
@pytest.mark.slurm
def test_two_nodes_train_what_one_process_trains(slurm, commands, sweeps, undisturbed):
    """Preempted once on the way: both leave together and go on together."""
    stage = Training(sweeps, commands, *PLAIN, "cluster.resources.dense.num_nodes=2")
    stage.reach(1)
    commands.run("scancel", "--signal=USR2", stage.job)
    commands.until(lambda: commands.rows()[stage.job][0] == "PENDING")
    assert stage.settle() == "done"

    other = undisturbed(*PLAIN)
    rows, others = (read_lines(store.stage_dir("dense", stage.key) / "metrics.jsonl") for store in (stage.store, other))
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    for row, expected in zip(rows, others, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    for file in other.artifacts_dir("dense", stage.key).glob("*.safetensors"):
        weights = load_file(stage.store.artifacts_dir("dense", stage.key) / file.name)
        for name, value in load_file(file).items():
            # Adam divides by the root of tiny second moments, which multiplies the last bits of the first steps.
            assert weights[name].double().numpy() == pytest.approx(value.double().numpy(), rel=1e-2, abs=1e-3), name


HOST_OF_ITS_OWN = """
import os, socket
node = os.environ.get("SLURMD_NODENAME")
if node:
    readlink = os.readlink
    socket.gethostname = lambda: node
    os.readlink = lambda path, **options: node if path == "/proc/self/ns/pid" else readlink(path, **options)
"""


@pytest.mark.slow
@pytest.mark.slurm
def test_two_copies_of_a_stage_at_once(own_slurm, sweeps, commands, undisturbed, tmp_path):
    """A node that loses SLURM, but not the job, while SLURM starts the job elsewhere."""
    # The virtual nodes are one machine, which is told by its process ids' namespace and not by its name; a process of
    # another node could be seen to live there.
    (tmp_path / "sitecustomize.py").write_text(HOST_OF_ITS_OWN)
    setup = f'cluster.resources.dense.setup=["export PYTHONPATH=$PYTHONPATH:{tmp_path}"]'
    cluster = own_slurm("SlurmdTimeout=4\n")
    stage = Training(sweeps, commands, *WORDS, setup)
    stage.reach(2)
    job, first = stage.job, stage.holder()
    assert first is not None
    assert first.process.host == commands.run("squeue", "-h", "-j", job, "-o", "%N")
    # It must not end before SLURM has noticed, which takes longer than the rest of its work.
    os.kill(first.process.pid, signal.SIGSTOP)
    cluster("stop", "-KILL", f"slurmd-{first.process.host}")
    commands.until(lambda: commands.rows()[job][0] == "PENDING", timeout_s=90)
    commands.until(lambda: (now := stage.holder()) is not None and now.process.host != first.process.host, timeout_s=90)
    stage.reach(2)
    os.kill(first.process.pid, signal.SIGCONT)
    assert stage.settle() == "done"
    commands.expect({job: "COMPLETED"})
    commands.until(lambda: not Path(f"/proc/{first.process.pid}").exists(), timeout_s=120)
    stage.assert_same_as(undisturbed(*WORDS))


LOW_AND_HIGH = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=n4 PriorityTier=10 PreemptMode=REQUEUE GraceTime=2 MaxTime=INFINITE
PartitionName=high Nodes=n4 PriorityTier=100 PreemptMode=OFF MaxTime=INFINITE
"""


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize("is_told", [True, False], ids=["send_user_signal", "sigterm"])
def test_pushed_aside_by_another_partition_it_goes_on_where_it_was(own_slurm, sweeps, commands, is_told):
    own_slurm(LOW_AND_HIGH + "SlurmctldParameters=preempt_send_user_signal\n" * is_told)
    stage = Training(sweeps, commands, *WORDS, "dense.epochs=1000", "cluster.resources.default.partition=low")
    stage.reach(3)
    job = stage.job
    urgent = commands.sbatch("--partition=high", "--exclusive", script="sleep 2")
    commands.until(lambda: commands.rows()[job][0] == "PENDING", timeout_s=90)
    assert stage.checkpoint.exists()
    commands.expect({urgent: "COMPLETED"})
    stage.reach()
    progress = stage.store.read_progress("dense", stage.key)
    assert progress is not None
    assert progress.done > 3
    assert stage.job == job
