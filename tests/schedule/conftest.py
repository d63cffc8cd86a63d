import functools
import runpy
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from spp.plan.cluster import ResourcesConfig
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.store import Store

# A worker as the schedulers expect one; what it does is in the stage's config.
WORKER = """
import os, signal, subprocess, sys, time, traceback
from spp.store.claim import EXIT_CLAIMED, AlreadyClaimed, claim
from spp.store.store import Store

root, kind, key = sys.argv[1:]
store = Store(root)
config = store.spec(kind, key)["config"]
print("hello from", config["name"])
if config.get("dies") == "before":
    sys.exit(3)
try:
    with claim(store, kind, key):
        work = store.begin(kind, key)
        if work is None:
            sys.exit(0)
        began = time.monotonic()
        for ref in store.spec(kind, key)["inputs"].values():
            assert store.verify(ref["kind"], ref["key"]) == []
        if config.get("spawns"):
            signal.signal(signal.SIGTERM, lambda *_: store.fail(kind, key, "terminated") or sys.exit(1))
            helper = subprocess.Popen(["sleep", "60"])
            (store.root / "pids").write_text(f"{os.getpid()} {helper.pid}")
        time.sleep(config.get("seconds", 0))
        if config.get("dies") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if config.get("dies") == "fails":
            try:
                raise ValueError(config["name"] + " is broken")
            except ValueError:
                store.fail(kind, key, traceback.format_exc())
            sys.exit(1)
        (work / "artifact").write_text(config["name"])
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        store.finish(kind, key, {"began": began, "ended": time.monotonic(), "gpus": gpus})
except AlreadyClaimed:
    sys.exit(EXIT_CLAIMED)
"""

# Holds the claim of a stage until a line comes in, then does what the line says.
HOLDER = """
import sys
from spp.store.claim import claim
from spp.store.store import Store
root, kind, key = sys.argv[1:]
store = Store(root)
with claim(store, kind, key):
    store.begin(kind, key)
    print("held", flush=True)
    word = sys.stdin.readline().strip()
    if word == "finish":
        store.finish(kind, key, {"by": "holder"})
    elif word == "fail":
        store.fail(kind, key, "ValueError: the holder failed")
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def plan():
    """dense -> update_1 -> tune_1, dense -> update_2 -> tune_2, and other, by itself."""
    return chains_plan()


@pytest.fixture
def chains():
    """Makes the plan of the fixture `plan` with other configs or resources: chains(update_1={"config": ...})."""
    return chains_plan


def chains_plan(**changes):
    def make(name, kind, inputs=None):
        change = changes.get(name, {})
        resources = {**ResourcesConfig().plain(), **change.get("resources", {})}
        config = {"name": name, **change.get("config", {})}
        return Stage(kind, config, inputs or {}, label=name, resources=resources)

    dense = make("dense", "dense")
    points = []
    for n in (1, 2):
        update = make(f"update_{n}", "update", {"dense": dense})
        points.append(Point(f"point_{n}", (f"n={n}",), (make(f"tune_{n}", "tune", {"path": update}),)))
    return Plan.merge([*points, Point("point_3", (), (make("other", "dense"),))])


@pytest.fixture
def labels():
    """Labels of some keys of a plan."""

    def of(plan, keys):
        return [plan.stages[key].label for key in keys]

    return of


@pytest.fixture
def key_of():
    """Key of the stage of a plan that has a label."""

    def of(plan, label):
        return next(key for key, stage in plan.stages.items() if stage.label == label)

    return of


# The server of workers, with a test worker in the place of the real one and nothing to import.
SERVER = """
import sys, types
from spp.stages import serve

def main():
    exec(WORKER, {"__name__": "worker"})
    return 0

sys.modules["spp.stages.worker"] = types.SimpleNamespace(main=main)
serve.preload = lambda: None
sys.exit(serve.main())
"""


@dataclass(frozen=True)
class Workers:
    """How the test workers of a store are started: each by an interpreter of its own, or forked by a server."""

    root: str
    forked: bool
    code: str = WORKER
    by_command: list[str] = field(default_factory=list)
    """Keys of the stages that were started by an interpreter of their own."""

    def command(self, kind, key):
        self.by_command.append(key)
        return [sys.executable, "-c", self.code, self.root, kind, key]

    @property
    def server(self):
        return [sys.executable, "-c", f"WORKER = {self.code!r}\n{SERVER}", self.root] if self.forked else []


@pytest.fixture
def make_workers(store):
    """Makes the test workers of the store: make_workers(forked, code)."""
    return lambda forked, code=WORKER: Workers(str(store.root), forked, code)


@pytest.fixture(params=[False, True], ids=["fresh", "forked"])
def workers(request, make_workers):
    """The test workers, started in both ways."""
    return make_workers(request.param)


@pytest.fixture
def start():
    """Starts real processes: start(code, *arguments) runs `python -c code`; the test's end kills them."""
    processes = []

    def start_one(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def hold(store, start):
    """Another process that holds the claim of a stage; `say` ends it by finish, fail or give back."""

    def hold_one(stage):
        store.put_spec(stage)
        process = start(HOLDER, store.root, stage.kind, stage.key)
        assert process.stdout.readline() == "held\n"
        return process

    return hold_one


@pytest.fixture
def say():
    def say_to(process, word):
        print(word, file=process.stdin, flush=True)
        assert process.wait(60) == 0

    return say_to


# What a SLURM job of these tests runs: the test worker, for the stage that its batch has under its index.
JOB = """
import os, runpy, subprocess, sys
from spp.store.store import Store
root, sweep, batch = ARGS
tasks = Store(root).read_batch(sweep, batch)["tasks"]
index = os.environ["SLURM_ARRAY_TASK_ID"] if len(tasks) > 1 else next(iter(tasks))
kind, key = tasks[index]
print("job of", kind, file=sys.stderr, flush=True)
config = Store(root).spec(kind, key)["config"]
if config.get("says"):
    print(config["says"], file=sys.stderr, flush=True)
if config.get("broken_until") and not os.path.exists(config["broken_until"]):
    os.kill(os.getpid(), 9)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
subprocess.run([sys.executable, "-c", WORKER, root, kind, key], check=True)
"""


@pytest.fixture
def job(tmp_path):
    """The callable of a batch, as `submit` asks for it."""
    script = tmp_path / "job.py"
    script.write_text(f"WORKER = {WORKER!r}\n{JOB}")
    return lambda *names: functools.partial(runpy.run_path, str(script), {"ARGS": names})
