import hashlib
import json
import os
import signal
import time

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage, StageRef
from spp.process import this_process
from spp.store import store as store_module
from spp.store.atomic import read_lines
from spp.store.marker import DONE
from spp.store.store import FAILED, Store, stage_of

# For each line of its input: forks a worker that kills itself at the n-th thing it does to the file system.
DIE_AT = """
import os, signal, sys
from spp.store.claim import claim
from spp.store.store import Store
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")

def work(root, kind, key, dies_at):
    left = int(dies_at)
    def count(event, arguments):
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    store = Store(root)
    sys.addaudithook(count)
    with claim(store, kind, key):
        work = store.begin(kind, key)
        if work is not None:
            store.write_provenance(kind, key, {"code_hash": "c0de"})
            (work / "weights.bin").write_bytes(b"w" * 1000)
            (work / "sub").mkdir()
            (work / "sub" / "more.bin").write_bytes(b"m" * 10)
            store.append_metrics(kind, key, {"loss": 1.0})
            store.write_progress(kind, key, done=1, total=2, unit="epoch")
            store.finish(kind, key, {"seconds": 5.0})

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        work(*line.split())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

# Works on the same stages as a twin without any claim, in step with it up to `finish`.
TWIN = """
import sys
from pathlib import Path
from spp.store.store import Store
root, me, twin, *keys = sys.argv[1:]
store, signs = Store(root), Path(root)
for key in keys:
    work = store.begin("update", key)
    (work / "weights.bin").write_text(f"weights of {me}")
    (signs / f"{key}-{me}").touch()
    while not (signs / f"{key}-{twin}").exists():
        pass
    store.finish("update", key, {"by": me})
    (signs / f"{key}-{me}-finished").touch()
    while not (signs / f"{key}-{twin}-finished").exists():
        pass
"""


def do(store, stage, summary=None, **files):
    """The whole work on a stage."""
    work = store.begin(stage.kind, stage.key)
    for name, content in files.items():
        (work / name).write_text(content)
    store.finish(stage.kind, stage.key, summary or {})


def visible(store, stage):
    return sorted(name for name in os.listdir(store.stage_dir(stage.kind, stage.key)))


def make_plan(*lrs):
    dense = Stage("dense", {"depth": 12})
    updates = {lr: Stage("update", {"lr": lr}, {"dense": dense}) for lr in lrs}
    return Plan.merge([Point(f"lr={lr}", (f"lr={lr}",), (stage,), {"lr": lr}) for lr, stage in updates.items()])


def test_spec_is_what_was_put(store):
    dense = Stage("dense", {"depth": 12})
    update = Stage("update", {"lr": 0.1}, {"dense": dense}, label="lr=0.1", runtime={"workers": 2})
    store.put_spec(update)
    assert store.spec("update", update.key) == update.to_json()
    with pytest.raises(FileNotFoundError):
        store.spec("dense", dense.key)


def test_spec_of_an_open_stage_follows_the_last_put_and_that_of_a_done_one_stays(store, stage):
    moved = Stage(stage.kind, stage.config, runtime={"data_root": "elsewhere"})
    store.put_spec(moved)
    assert store.spec(stage.kind, stage.key)["runtime"] == {"data_root": "elsewhere"}
    do(store, stage)
    store.put_spec(stage)
    assert store.spec(stage.kind, stage.key)["runtime"] == {"data_root": "elsewhere"}


def test_nothing_is_visible_before_finish_and_all_of_it_after(store, stage):
    work = store.begin(stage.kind, stage.key)
    (work / "weights.bin").write_bytes(b"abc")
    (work / "parts").mkdir()
    (work / "parts" / "one.bin").write_bytes(b"")
    assert not store.is_done(stage.kind, stage.key)
    assert not store.artifacts_dir(stage.kind, stage.key).exists()
    store.finish(stage.kind, stage.key, {"accuracy": 0.5})
    assert store.is_done(stage.kind, stage.key)
    assert store.done(stage.kind, stage.key)["artifacts"] == {
        "weights.bin": {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()},
        "parts/one.bin": {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
    }
    assert store.summary(stage.kind, stage.key) == {"accuracy": 0.5}
    assert (store.artifacts_dir(stage.kind, stage.key) / "weights.bin").read_bytes() == b"abc"
    assert visible(store, stage) == [DONE, "artifacts", "spec.json", "summary.json"]


def test_finished_stage_needs_no_work(store, stage):
    do(store, stage)
    assert store.begin(stage.kind, stage.key) is None


def test_verify_sees_every_kind_of_damage(store, stage):
    assert store.verify(stage.kind, stage.key) == [f"update {stage.key}: it is not done"]
    do(store, stage, a="aaa", b="bbb", c="ccc", d="ddd")
    assert store.verify(stage.kind, stage.key) == []
    artifacts = store.artifacts_dir(stage.kind, stage.key)
    (artifacts / "a").unlink()
    (artifacts / "b").write_text("bb")
    (artifacts / "c").write_text("ccC")
    problems = store.verify(stage.kind, stage.key)
    assert [problem.split("artifact ")[1] for problem in problems] == [
        "a is missing",
        "b has 2 bytes instead of 3",
        "c has another sha256 than when it was written",
    ]


def test_summary_that_json_cannot_hold_changes_nothing(store, stage):
    work = store.begin(stage.kind, stage.key)
    (work / "weights.bin").write_text("abc")
    with pytest.raises(TypeError):
        store.finish(stage.kind, stage.key, {"accuracy": object()})
    assert not store.is_done(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, {"accuracy": 1})
    assert store.verify(stage.kind, stage.key) == []


def test_killed_worker_leaves_no_done_or_a_right_one_and_the_next_one_finishes(tmp_path, start):
    """Killed at every single step in turn."""
    workers = start(DIE_AT)

    def exit_code_of_worker(dies_at):
        print(store.root, stage.kind, stage.key, dies_at, file=workers.stdin, flush=True)
        return int(workers.stdout.readline())

    died, at = True, 0
    while died:
        at += 1
        store = Store(tmp_path / str(at))
        stage = Stage("update", {"n": 1})
        store.put_spec(stage)
        died = exit_code_of_worker(at) == -signal.SIGKILL
        if store.is_done(stage.kind, stage.key):
            assert store.verify(stage.kind, stage.key) == []
            assert store.summary(stage.kind, stage.key) == {"seconds": 5.0}
        assert store.artifacts_dir(stage.kind, stage.key).exists() or not store.is_done(stage.kind, stage.key)
        if died:
            forget_unsigned_claims(store.stage_dir(stage.kind, stage.key))
            assert exit_code_of_worker(0) == 0
        assert store.verify(stage.kind, stage.key) == []
        assert set(store.done(stage.kind, stage.key)["artifacts"]) == {"weights.bin", "sub/more.bin"}
        assert store.done(stage.kind, stage.key)["code_hash"] == "c0de"
        left = [name for name in visible(store, stage) if name.startswith((".tmp", "claim"))]
        # A stage that is done is not worked on again, so nobody tidies up after its last moments.
        assert left == [] or (died and len(left) == 1)
    assert at > 20


def forget_unsigned_claims(folder):
    """As if so much time had passed that a claim without a name counts as given up."""
    for path in folder.glob("claim-*"):
        if path.stat().st_size == 0:
            os.utime(path, (0, 0))


def test_two_copies_of_a_stage_do_each_other_no_harm(store, start):
    keys = [f"{n:020x}" for n in range(15)]
    store.root.mkdir()
    twins = [start(TWIN, store.root, me, twin, *keys) for me, twin in (("a", "b"), ("b", "a"))]
    assert [process.wait(60) for process in twins] == [0, 0]
    for key in keys:
        assert store.verify("update", key) == []
        weights = (store.artifacts_dir("update", key) / "weights.bin").read_text()
        assert weights == f"weights of {store.summary('update', key)['by']}"
        assert not [name for name in os.listdir(store.stage_dir("update", key)) if name.startswith(".tmp")]


def test_worker_that_died_just_before_done_is_made_good(store, stage):
    do(store, stage, {"accuracy": 0.5}, weights="abc")
    folder = store.stage_dir(stage.kind, stage.key)
    before = store.done(stage.kind, stage.key)
    (folder / DONE).unlink()
    (folder / "summary.json").unlink()
    assert store.begin(stage.kind, stage.key) is None
    assert store.done(stage.kind, stage.key) == before
    assert store.summary(stage.kind, stage.key) == {"accuracy": 0.5}


def test_damaged_artifacts_without_done_are_made_again(store, stage):
    do(store, stage, weights="abc")
    (store.stage_dir(stage.kind, stage.key) / DONE).unlink()
    (store.artifacts_dir(stage.kind, stage.key) / "weights").write_text("abd")
    do(store, stage, weights="new")
    assert store.verify(stage.kind, stage.key) == []
    assert (store.artifacts_dir(stage.kind, stage.key) / "weights").read_text() == "new"


def test_next_worker_removes_what_dead_ones_left_and_nothing_of_the_living(store, stage):
    folder = store.stage_dir(stage.kind, stage.key)
    me = this_process()
    names = {
        "dead": f".tmp-{me.host}-{me.machine}-{me.pid}-{me.start + 1}-0a",
        "own": f".tmp-{me.tag}-0b",
        "living": f".tmp-{me.host}-{me.machine}-{os.getppid()}-{start_of(os.getppid())}-0c",
        "elsewhere": f".tmp-node-00000000-{me.pid}-{me.start}-0d",
        "elsewhere long ago": f".tmp-node-00000000-{me.pid}-{me.start}-0e",
    }
    for name in names.values():
        (folder / name).mkdir()
        (folder / name / "half").touch()
    (folder / f".tmp-{me.tag}-0f").touch()
    month_ago = time.time() - 30 * 24 * 3600
    os.utime(folder / names["elsewhere long ago"], (month_ago, month_ago))
    os.utime(folder / names["living"], (month_ago, month_ago))
    work = store.begin(stage.kind, stage.key)
    left = {name for name in visible(store, stage) if name.startswith(".tmp")}
    assert left == {work.name, names["living"], names["elsewhere"]}


def start_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def test_failure_holds_the_error_and_the_end_of_the_traceback(store, stage):
    assert store.failure(stage.kind, stage.key) is None
    lines = [f"line {n}" for n in range(1000)]
    store.fail(stage.kind, stage.key, "\n".join([*lines, "ValueError: lr: -1 is not allowed", "", ""]))
    failure = store.failure(stage.kind, stage.key)
    assert failure["error"] == "ValueError: lr: -1 is not allowed"
    assert failure["traceback"].splitlines()[-2:] == ["line 999", failure["error"]]
    assert len(failure["traceback"].splitlines()) < 100
    assert failure["host"] == this_process().host


def test_start_forgets_an_earlier_failure_and_its_progress(store, stage):
    store.fail(stage.kind, stage.key, "broken")
    store.write_progress(stage.kind, stage.key, done=1, total=2, unit="epoch")
    store.begin(stage.kind, stage.key)
    assert store.failure(stage.kind, stage.key) is None
    assert store.read_progress(stage.kind, stage.key) is None


def test_the_stage_of_an_artifact_is_found_by_its_file(store, stage, tmp_path, monkeypatch):
    do(store, stage)
    file = store.artifacts_dir(stage.kind, stage.key) / "deep" / "file"
    monkeypatch.chdir(store.root)
    for path in (file, file.relative_to(store.root)):
        found, ref = stage_of(path)
        assert (found.root, ref) == (store.root, stage.ref)
    assert stage_of(tmp_path / "artifacts" / "file") is None
    assert stage_of(tmp_path / "file") is None


def test_the_marker_comes_after_all_that_it_vouches_for(store, stage, monkeypatch):
    folder, there = store.stage_dir(stage.kind, stage.key), []
    write = store_module.write_json

    def watched(path, value, **options):
        if path.name == DONE:
            there.extend((folder / name).exists() for name in ("artifacts/a.txt", "summary.json"))
        write(path, value, **options)

    monkeypatch.setattr(store_module, "write_json", watched)
    work = store.begin(stage.kind, stage.key)
    (work / "a.txt").write_text("a")
    store.finish(stage.kind, stage.key, {"seconds": 1.0})
    assert there == [True, True]


def test_done_is_never_called_failed(store, stage):
    do(store, stage)
    store.fail(stage.kind, stage.key, "a slower copy was killed")
    assert FAILED not in visible(store, stage)


def test_metrics_and_progress_come_back(store, stage):
    assert read_lines(store.stage_dir(stage.kind, stage.key) / "metrics.jsonl") == []
    for epoch in range(3):
        store.append_metrics(stage.kind, stage.key, {"epoch": epoch, "loss": 1 / (1 + epoch)})
    with open(store.stage_dir(stage.kind, stage.key) / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')
    assert [row["epoch"] for row in read_lines(store.stage_dir(stage.kind, stage.key) / "metrics.jsonl")] == [0, 1, 2]
    store.write_progress(stage.kind, stage.key, done=3, total=10, unit="epoch", message="loss 0.3")
    progress = store.read_progress(stage.kind, stage.key)
    assert (progress.done, progress.total, progress.unit, progress.message) == (3, 10, "epoch", "loss 0.3")
    assert abs(progress.time - time.time()) < 60


def test_provenance_comes_back_and_its_code_hash_gets_into_done(store, stage):
    store.write_provenance(stage.kind, stage.key, {"code_hash": "c0de", "host": "here"})
    do(store, stage, {"seconds": 2.5})
    assert store.provenance(stage.kind, stage.key) == {"code_hash": "c0de", "host": "here"}
    assert store.done(stage.kind, stage.key)["code_hash"] == "c0de"
    assert store.done(stage.kind, stage.key)["seconds"] == 2.5


def test_costs_of_the_last_finished_stages(store):
    assert store.recent_costs("update", 20) == []
    for n in range(30):
        do(store, Stage("update", {"n": n}), {"seconds": n, "gpu_seconds": 2 * n})
    do(store, Stage("dense", {}), {"seconds": 1000})
    costs = store.recent_costs("update", 20)
    assert [(cost["seconds"], cost["gpu_seconds"]) for cost in costs] == [(n, 2 * n) for n in range(10, 30)]


def test_stages_are_found_by_the_start_of_their_key(store):
    stages = [Stage(kind, {"n": n}) for kind in ("dense", "update") for n in range(20)]
    assert store.find_stages("") == []
    for stage in stages:
        do(store, stage)
    for stage in stages:
        assert store.find_stages(stage.key) == [StageRef(stage.kind, stage.key)]
        found = store.find_stages(stage.key[:1])
        assert {ref.key for ref in found} == {s.key for s in stages if s.key[0] == stage.key[0]}


def test_plan_of_a_sweep_comes_back(store):
    plan = make_plan(1, 2, 3)
    store.write_plan("first", plan)
    assert store.read_plan("first") == plan
    assert json.loads((store.root / "sweeps/first/points.json").read_text())["points"] == plan.points_to_json()


def test_sweeps_newest_first(store):
    assert store.list_sweeps() == []
    assert store.latest() is None
    for n, sweep in enumerate(["b", "c", "a"]):
        store.write_plan(sweep, make_plan(n))
        os.utime(store.root / "sweeps" / sweep / "points.json", (1000 + n, 1000 + n))
    (store.root / "sweeps" / "half written").mkdir()
    (store.root / "sweeps" / "a file").touch()
    assert store.list_sweeps() == ["a", "c", "b"]
    assert store.latest() == "a"


def test_unknown_sweep_is_refused_with_the_known_ones(store):
    with pytest.raises(ValueError, match=r"^sweep: 'x' is not in .*: must be one of none here yet;"):
        store.read_plan("x")
    store.write_plan("known", make_plan(1))
    with pytest.raises(ValueError, match=r"^sweep: 'x' is not in .*: must be one of known;"):
        store.read_plan("x")


@pytest.mark.parametrize("sweep", ["", "..", ".hidden", "a/b", "/etc"])
def test_sweep_that_is_no_folder_name_is_refused(store, sweep):
    with pytest.raises(ValueError, match=r"^sweep: .* is not allowed: must be a name without '/'"):
        store.sweep_dir(sweep)


def test_jobs_come_back(store):
    store.write_plan("first", make_plan(1))
    assert store.read_jobs("first") == []
    store.append_job("first", {"key": "a", "job": "1_0"})
    store.append_job("first", {"key": "b", "job": "1_1"})
    assert store.read_jobs("first") == [{"key": "a", "job": "1_0"}, {"key": "b", "job": "1_1"}]


def test_a_sweep_keeps_the_config_of_its_cluster(store, stage):
    plan = Plan.merge([Point("point", (), (stage,))])
    store.write_plan("sweep", plan, {"name": "slurm", "max_parallel": 4})
    assert store.read_cluster("sweep") == {"name": "slurm", "max_parallel": 4}
    assert store.read_plan("sweep").stages == plan.stages
    with pytest.raises(FileNotFoundError):
        store.read_cluster("other")


def test_batches_and_submissions_come_back_as_written(store, stage):
    store.write_batch("sweep", "000", {"tasks": {3: ["update", stage.key]}})
    assert store.read_batch("sweep", "000")["tasks"] == {"3": ["update", stage.key]}
    with pytest.raises(FileNotFoundError):
        store.read_batch("sweep", "001")
    assert store.submitted("update", stage.key) is None
    store.write_submitted("update", stage.key, {"sweep": "sweep", "batch": "000", "index": 3})
    assert store.submitted("update", stage.key)["index"] == 3
