"""What the tests of this folder share: jobs on the real virtual cluster and on the fake one."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spp.cli.launch import run_planned
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.plan.graph import Plan
from spp.schedule.slurm import live_of
from spp.schedule.status import StageStatus, State, sweep_status
from spp.store import snapshot
from spp.store.store import Store

SETTLED = (State.DONE, State.FAILED, State.BLOCKED, State.LOST, State.CANCELLED)

# Takes the place of the real worker in the copy of the code that jobs run: notes that it ran, and fails while a file
# says so. It is there before the copy is taken: what changes in a copy is refused.
LIGHT_WORKER = """
import traceback
from spp.store.claim import claim
from spp.store.store import Store

def run_stage(root, kind, key, *, alive=None, wait_for_holder=False):
    store = Store(root)
    with claim(store, kind, key, alive=alive):
        work = store.begin(kind, key)
        if work is None:
            return
        spec = store.spec(kind, key)
        assert all(store.verify(ref["kind"], ref["key"]) == [] for ref in spec["inputs"].values())
        with open(store.root / "ran", "a") as ran:
            print(key, file=ran)
        try:
            if (store.root / f"broken-{kind}-{spec['config'].get('seed')}").exists():
                raise RuntimeError(f"{kind} is broken")
        except RuntimeError:
            store.fail(kind, key, traceback.format_exc())
            raise
        (work / "artifact").write_text(key)
        store.finish(kind, key, {})
"""


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.slurm)])
def queue(request: pytest.FixtureRequest, commands: "Queue") -> "Queue":
    """A SLURM to submit to: the fake one anywhere, the real one where it is installed."""
    request.getfixturevalue("fake_slurm" if request.param == "fake" else "slurm")
    return commands


@pytest.fixture
def commands() -> "Queue":
    """The commands of the SLURM that another fixture put on PATH."""
    return Queue()


class Queue:
    """The commands of whichever SLURM is on PATH."""

    def run(self, *words: str, check: bool = True) -> str:
        """Standard output of one command; what it complains about on failure."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

    def sbatch(self, *options: str, script: str = "true") -> str:
        """Submits a script; its id."""
        return self.run("sbatch", "--output=/dev/null", "--parsable", *options, f"--wrap={script}")

    def rows(self) -> dict[str, tuple[str, str]]:
        """State and reason of every job that SLURM remembers."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r").splitlines()
        return {job: (state, reason) for job, state, reason in (line.split("|") for line in lines)}

    def expect(self, states: dict[str, str]) -> None:
        """Waits until the jobs are in these states; of one that can never start the reason is its state."""
        never = "DependencyNeverSatisfied"

        def met() -> bool:
            rows = self.rows()
            seen = {job: rows.get(job, ("gone", "")) for job in states}
            return {job: never if row == ("PENDING", never) else row[0] for job, row in seen.items()} == states

        self.until(met)

    def until(self, met: Callable[[], bool], timeout_s: float = 180) -> None:
        """Until the condition holds; the queue as it is if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not met():
            assert time.monotonic() < deadline, self.rows()
            time.sleep(0.1)


class Sweeps:
    """A store, and the commands of spp on it."""

    words = (
        "cluster=slurm",
        "cluster.resources.default.gpus_per_node=0",
        "cluster.resources.default.cpus_per_task=1",
        "logger=off",
        "accelerator=cpu",
    )
    """For nodes with one CPU and no GPU."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def spp(self, *words: str) -> int:
        """One command, in this process; its exit code."""
        return main([*words, f"paths.store={self.store.root}"])

    def run(self, *words: str) -> str:
        """Submits a sweep to the virtual cluster; its name."""
        assert self.spp("run", *words, *self.words) == 0
        return self.store.latest() or ""

    def run_only(self, kind: str, *words: str) -> str:
        """Runs, or submits, the first stage of a kind and what it needs; its key."""
        planned = plan_sweep(compose_points([*words, f"paths.store={self.store.root}"], multirun=False))
        stage = next(stage for stage in planned.plan.stages.values() if stage.kind == kind)
        plan = Plan.merge([replace(planned.plan.points[0], stages=(stage,))])
        assert run_planned(replace(planned, plan=plan)).ok
        return stage.key

    def stages(self, sweep: str) -> list[StageStatus]:
        """What `spp status` knows of each stage."""
        return list(sweep_status(self.store, sweep, live_of(self.store, sweep)).stages)

    def settled(self, sweep: str, timeout_s: float = 900) -> dict[str, str]:
        """States by key, once nothing is to be expected any more."""
        deadline = time.monotonic() + timeout_s
        while True:
            stages = self.stages(sweep)
            if all(stage.state in SETTLED for stage in stages):
                return {stage.key: stage.state.value for stage in stages}
            assert time.monotonic() < deadline, stages
            time.sleep(0.2)

    def keys(self, sweep: str, kind: str) -> list[str]:
        """Keys of the stages of one kind."""
        return [stage.key for stage in self.store.read_plan(sweep).stages.values() if stage.kind == kind]


_LIGHT_MAIN = """
import sys
from spp.cli.main import main
from spp.store import snapshot

read = snapshot._read_package
snapshot._read_package = lambda: {{**read(), "stages/worker.py": {worker!r}.encode()}}
sys.exit(main(sys.argv[1:]))
"""


def _with_light_worker(read: Callable[[], dict[str, bytes]]) -> Callable[[], dict[str, bytes]]:
    return lambda: {**read(), "stages/worker.py": LIGHT_WORKER.encode()}


class LightSweeps(Sweeps):
    """Sweeps whose jobs run LIGHT_WORKER."""

    def spp(self, *words: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snapshot, "_read_package", _with_light_worker(snapshot._read_package))
            return super().spp(*words)

    def command(self, *words: str) -> list[str]:
        """The argv of one command in a process of its own."""
        return [sys.executable, "-c", _LIGHT_MAIN.format(worker=LIGHT_WORKER), *words, f"paths.store={self.store.root}"]

    def ran(self) -> list[str]:
        """Keys of the stages that were really worked on, in the order of their starts."""
        path = self.store.root / "ran"
        return path.read_text().split() if path.exists() else []

    def broken(self, kind: str, seed: int) -> Path:
        """Stages of this kind and seed fail as long as this file exists."""
        return self.store.root / f"broken-{kind}-{seed}"


@pytest.fixture(scope="session")
def make_sweeps() -> type[Sweeps]:
    """Makes a store with the commands on it: make_sweeps(root)."""
    return Sweeps


@pytest.fixture
def sweeps(tmp_path: Path) -> Sweeps:
    """An empty store and the commands on it."""
    return Sweeps(tmp_path / "store")


@pytest.fixture
def light(tmp_path: Path) -> LightSweeps:
    """The same with jobs that compute nothing: what the queue does does not depend on what a stage computes."""
    return LightSweeps(tmp_path / "store")
