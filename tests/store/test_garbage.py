"""What nothing refers to any more goes, and nothing else, whatever is going on in the store."""

import os
import time

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.claim import claim
from spp.store.garbage import CACHE_SECONDS, CODE_SECONDS, FRESH_SECONDS, find_garbage, remove, remove_sweep, size_of
from spp.store.marker import set_aside


def age(path, seconds):
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))


def finish(store, stage):
    store.put_spec(stage)
    work = store.begin(stage.kind, stage.key)
    (work / "weights").write_bytes(bytes(1000))
    store.finish(stage.kind, stage.key, {"seconds": 1.0})
    age(store.stage_dir(stage.kind, stage.key), 2 * FRESH_SECONDS)


@pytest.fixture
def two_sweeps(store):
    """Two sweeps that share their dense stage; all is done, and older than FRESH_SECONDS."""
    dense = Stage("dense", {})
    ends = {name: Stage("finetune", {"name": name}, {"family": dense}) for name in ("a", "b")}
    for name, stage in ends.items():
        store.write_plan(name, Plan.merge([Point("p", (), (stage,), {})]), {"name": "debug"})
    for stage in (dense, *ends.values()):
        finish(store, stage)
    return store, dense, ends


def whats(store, **options):
    return sorted((one.what, one.path.name) for one in find_garbage(store, **options))


def test_what_a_sweep_refers_to_stays_and_what_only_a_forgotten_one_did_goes(two_sweeps):
    store, dense, ends = two_sweeps
    assert find_garbage(store) == []
    remove_sweep(store, "a")
    assert store.list_sweeps() == ["b"]
    (found,) = find_garbage(store)
    assert (found.what, found.path) == ("stage", store.stage_dir("finetune", ends["a"].key))
    assert found.num_bytes == size_of(found.path) > 1000
    assert remove(store, found) is None
    assert not found.path.exists()
    assert store.is_done("dense", dense.key)
    assert store.is_done("finetune", ends["b"].key)
    assert find_garbage(store) == []


def test_a_stage_that_runs_or_is_fresh_stays(two_sweeps):
    store, _, ends = two_sweeps
    remove_sweep(store, "a")
    (found,) = find_garbage(store)
    stage = ends["a"]
    with claim(store, stage.kind, stage.key):
        age(found.path, 2 * FRESH_SECONDS)
        assert find_garbage(store) == []
        # It was found before somebody took it up again.
        assert remove(store, found) == "somebody has begun to work on it"
    assert store.is_done(stage.kind, stage.key)
    age(found.path, FRESH_SECONDS / 2)
    assert find_garbage(store) == []


def test_damaged_files_reports_code_and_caches(two_sweeps):
    store, dense, _ = two_sweeps
    set_aside(store.stage_dir("dense", dense.key), "torn")
    (store.root / "reports" / "a").mkdir(parents=True)
    (store.root / "reports" / "gone").mkdir()
    (store.root / "reports" / "all").mkdir()
    for name, seconds in (
        ("old", 2 * CODE_SECONDS),
        ("used", 2 * CODE_SECONDS),
        ("given", 2 * CODE_SECONDS),
        ("new", 0),
    ):
        (store.root / "code" / name).mkdir(parents=True)
        age(store.root / "code" / name, seconds)
    store.write_provenance("dense", dense.key, {"snapshot": "used"})
    script = store.sweep_dir("b") / "jobs" / "slurm" / "000" / "submission.sh"
    script.parent.mkdir(parents=True)
    script.write_text("export PYTHONPATH=/store/code/given")
    for name, seconds in (("old.json", 2 * CACHE_SECONDS), ("read.json", 0)):
        (store.root / "cache").mkdir(exist_ok=True)
        (store.root / "cache" / name).write_text("{}")
        age(store.root / "cache" / name, seconds)
    found = whats(store)
    assert [what for what, _ in found] == ["cache", "code", "damaged", "report"]
    assert [name for _, name in found if not name.startswith("damaged-")] == ["old.json", "old", "gone"]
    assert [what for what, _ in whats(store, is_busy=True)] == ["damaged", "report"]


def test_a_plan_that_cannot_be_read_stops_it(two_sweeps):
    store, _, _ = two_sweeps
    (store.sweep_dir("a") / "plan.json").write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json: it is damaged"):
        find_garbage(store)
