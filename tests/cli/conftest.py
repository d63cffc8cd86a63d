import subprocess
import sys

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.store import Store

SWEEP = "spp-vit-digits-0a1b2c"


@pytest.fixture
def chain():
    """dense -> update -> two members, as a plan of one point."""
    dense = Stage("dense", {"seed": 0}, label="dense")
    update = Stage("update", {"lr": 0.1}, {"dense": dense}, label="path")
    tunes = tuple(Stage("finetune", {"size": n}, {"family": update}, label=f"member {n}") for n in (1, 2))
    return Plan.merge([Point("seed=0", ("seed=0",), tunes, {})])


@pytest.fixture
def sweep(chain, tmp_path):
    """Store and name of a sweep of which nothing is done."""
    store = Store(tmp_path / "store")
    store.write_plan(SWEEP, chain, {"name": "local"})
    for stage in chain.stages.values():
        store.put_spec(stage)
    return store, SWEEP


@pytest.fixture
def start():
    """Starts real processes: start(code, *arguments) runs `python -c code`; the test's end kills them."""
    processes = []

    def start_one(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def finish():
    """finish(store, stage): does a stage, without any work."""

    def finish_one(store, stage):
        store.begin(stage.kind, stage.key)
        store.finish(stage.kind, stage.key, {"seconds": 1.0})

    return finish_one
