import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.process import this_process
from spp.schedule.status import Live, LiveJob, State, plan_status, sweep_status
from spp.store.claim import Holder, claim

# Prints what the status of a sweep reads: file system events with their paths, counted by the interpreter itself.
WATCHED_STATUS = """
import json, os, sys
from spp.schedule.status import sweep_status
from spp.store.store import Store
root, sweep = sys.argv[1:]
seen = []
def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(root):
        seen.append([event, os.path.relpath(arguments[0], root)])
    if event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.utime", "os.link"):
        seen.append([event, "changes something"])
sys.addaudithook(watch)
status = sweep_status(Store(root), sweep)
print(json.dumps([seen, status.counts, sorted(sys.modules)]))
"""


def finish(store, stage, **summary):
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, summary)


def put_claim(store, stage, job="", age_seconds=0.0, **process_changes):
    """A claim as another process would have left it."""
    folder = store.stage_dir(stage.kind, stage.key)
    folder.mkdir(parents=True, exist_ok=True)
    process = replace(this_process(), **process_changes)
    since = time.time() - age_seconds
    (folder / "claim-1").write_text(json.dumps(asdict(Holder(process, job, 0, since))))
    os.utime(folder / "claim-1", (since, since))


@pytest.fixture
def by_label(plan, key_of):
    """The stage of the plan that has a label."""
    return lambda label: plan.stages[key_of(plan, label)]


def states(store, plan, live=None):
    return {status.label: status.state.value for status in plan_status(store, plan, live).values()}


def test_nothing_started_is_queued(store, plan):
    assert set(states(store, plan).values()) == {"queued"}
    assert list(plan_status(store, plan)) == list(plan.stages)


def test_done_tells_seconds_and_code(store, plan, by_label):
    dense = by_label("dense")
    store.put_spec(dense)
    store.write_provenance("dense", dense.key, {"code_hash": "c0de"})
    finish(store, dense, seconds=12.5)
    status = plan_status(store, plan)[dense.key]
    assert (status.state, status.seconds, status.code_hash) == (State.DONE, 12.5, "c0de")


def test_running_tells_progress_host_and_time(store, plan, by_label):
    dense = by_label("dense")
    store.put_spec(dense)
    with claim(store, "dense", dense.key):
        status = plan_status(store, plan)[dense.key]
        assert (status.state, status.progress) == (State.RUNNING, None)
        store.begin("dense", dense.key)
        store.write_progress("dense", dense.key, done=3, total=10, unit="epoch", message="loss 0.5")
        status = plan_status(store, plan)[dense.key]
        assert (status.state, status.host) == (State.RUNNING, this_process().host)
        assert (status.progress.done, status.progress.total, status.progress.unit) == (3, 10, "epoch")
        assert 0 <= status.seconds < 60
    assert plan_status(store, plan)[dense.key].state is State.QUEUED


def test_failed_tells_the_last_lines_and_blocks_descendants_only(store, plan, by_label):
    finish(store, by_label("dense"))
    broken = by_label("update_1")
    text = "".join(f"line {n}\n" for n in range(30)) + "ValueError: lr: -1 is not allowed"
    store.fail("update", broken.key, text)
    assert states(store, plan) == {
        "dense": "done",
        "update_1": "failed",
        "tune_1": "blocked",
        "update_2": "queued",
        "tune_2": "queued",
        "other": "queued",
    }
    statuses = plan_status(store, plan)
    assert statuses[broken.key].error.splitlines()[-2:] == ["line 29", "ValueError: lr: -1 is not allowed"]
    assert len(statuses[broken.key].error.splitlines()) == 5
    frames = 'Traceback (most recent call last):\n  File "/home/a/nets.py", line 3, in make\n    return f(x)\n'
    frames += '  File "/v/site-packages/torch/nn.py", line 9, in f\n    raise\nValueError: lr: -1 is not allowed'
    store.fail("update", broken.key, frames)
    told = plan_status(store, plan)[broken.key].error.splitlines()
    assert told == ["nets.py:3 in make: return f(x)", "ValueError: lr: -1 is not allowed"]
    assert statuses[by_label("tune_1").key].culprit == broken.key


def test_culprit_is_the_failed_stage_however_far_below(store, plan, by_label):
    store.fail("dense", by_label("dense").key, "broken")
    statuses = plan_status(store, plan)
    for label in ("update_1", "tune_1", "update_2", "tune_2"):
        assert statuses[by_label(label).key].state is State.BLOCKED
        assert statuses[by_label(label).key].culprit == by_label("dense").key
    assert statuses[by_label("other").key].state is State.QUEUED


def test_retried_stage_runs_in_spite_of_its_old_failure(store, plan, by_label):
    dense = by_label("dense")
    store.fail("dense", dense.key, "of yesterday")
    put_claim(store, dense)
    assert states(store, plan)["dense"] == "running"
    put_claim(store, dense, start=this_process().start + 1)
    assert states(store, plan)["dense"] == "failed"


def test_holder_that_died_without_a_marker_is_lost(store, plan, by_label):
    dense = by_label("dense")
    put_claim(store, dense, start=this_process().start + 1)
    statuses = plan_status(store, plan)
    assert (statuses[dense.key].state, statuses[dense.key].host) == (State.LOST, this_process().host)
    assert statuses[by_label("tune_1").key].culprit == dense.key


def test_holder_elsewhere_is_judged_by_heartbeat_or_by_the_cluster(store, plan, by_label):
    dense, other = by_label("dense"), by_label("other")
    put_claim(store, dense, host="node1", machine="01", job="7_1")
    put_claim(store, other, host="node2", machine="02", job="7_2", age_seconds=3600)
    status = plan_status(store, plan)
    assert (status[dense.key].state, status[dense.key].host, status[dense.key].job) == ("running", "node1", "7_1")
    assert status[other.key].state is State.LOST
    alive = {"7_1": False, "7_2": True}
    status = plan_status(store, plan, Live({}, alive=lambda holder: alive[holder.job]))
    assert status[dense.key].state is State.LOST
    assert (status[other.key].state, status[other.key].seconds) == (State.RUNNING, pytest.approx(3600, abs=60))


def test_cluster_tells_about_what_has_no_file_yet(store, plan, by_label):
    finish(store, by_label("dense"))
    store.fail("dense", by_label("other").key, "broken")
    jobs = {
        by_label("dense").key: LiveJob("1", "gone"),
        by_label("other").key: LiveJob("2", "gone"),
        by_label("update_1").key: LiveJob("3_0", "running"),
        by_label("tune_1").key: LiveJob("4_0", "pending", "Dependency"),
        by_label("update_2").key: LiveJob("3_1", "gone"),
        by_label("tune_2").key: LiveJob("4_1", "pending", "DependencyNeverSatisfied"),
    }
    assert states(store, plan, Live(jobs)) == {
        "dense": "done",
        "other": "failed",
        "update_1": "running",
        "tune_1": "queued",
        "update_2": "lost",
        "tune_2": "blocked",
    }
    status = plan_status(store, plan, Live(jobs))[by_label("tune_1").key]
    assert (status.job, status.error) == ("4_0", "Dependency")


def test_sweep_counts_kinds_and_points(store, plan, by_label):
    store.write_plan("sweep", plan)
    for label in ("dense", "update_1", "tune_1"):
        finish(store, by_label(label), seconds=1.0)
    store.fail("update", by_label("update_2").key, "broken")
    put_claim(store, by_label("other"))
    status = sweep_status(store, "sweep")
    assert status.counts == {
        "dense": {"done": 1, "running": 1},
        "update": {"done": 1, "failed": 1},
        "tune": {"done": 1, "blocked": 1},
    }
    points = {point.name: point for point in status.points}
    assert (points["point_1"].state, points["point_1"].culprit) == (State.DONE, None)
    assert points["point_1"].overrides == ("n=1",)
    assert (points["point_2"].state, points["point_2"].culprit) == (State.FAILED, by_label("update_2").key)
    assert points["point_2"].counts == {"done": 1, "failed": 1, "blocked": 1}
    assert points["point_3"].state is State.RUNNING


def test_point_is_done_if_its_results_are_though_an_input_was_removed(store, plan, by_label):
    store.write_plan("sweep", plan)
    finish(store, by_label("tune_1"))
    store.fail("dense", by_label("dense").key, "broken")
    points = {point.name: point.state for point in sweep_status(store, "sweep").points}
    assert points == {"point_1": State.DONE, "point_2": State.FAILED, "point_3": State.QUEUED}


def test_json_holds_all_of_it(store, plan, by_label):
    store.write_plan("sweep", plan)
    finish(store, by_label("dense"), seconds=1.0)
    read = json.loads(json.dumps(sweep_status(store, "sweep").to_json()))
    assert read["sweep"] == "sweep"
    assert [stage["key"] for stage in read["stages"]] == list(plan.stages)
    assert read["stages"][0]["state"] == "done"
    assert [point["name"] for point in read["points"]] == ["point_1", "point_2", "point_3"]


def test_unknown_sweep_is_refused(store):
    with pytest.raises(ValueError, match=r"^sweep: 'x' is not in"):
        sweep_status(store, "x")


def test_sweep_in_a_store_of_10000_stages_touches_its_own_stages_only_and_each_little(store):
    """Own: 100 done, 50 running, 50 failed, 100 not started; in the store: 9,700 others."""
    stages = [Stage("update", {"n": n}, label=str(n)) for n in range(300)]
    store.write_plan("mine", Plan.merge([Point(s.label, (), (s,)) for s in stages]))
    kind = store.root / "stages" / "update"
    for n in range(9700):
        (kind / f"{n:020x}").mkdir(parents=True)
        (kind / f"{n:020x}" / "DONE").touch()
    marker = json.dumps({"seconds": 1.0, "code_hash": None, "artifacts": {}, "finished_at": ""})
    for stage in stages[:200]:
        store.put_spec(stage)
    for stage in stages[:100]:
        (kind / stage.key / "DONE").write_text(marker)
    for stage in stages[100:150]:
        put_claim(store, stage)
    for stage in stages[150:200]:
        (kind / stage.key / "FAILED").write_text(json.dumps({"traceback": "broken", "host": "h"}))

    argv = [sys.executable, "-c", WATCHED_STATUS, str(store.root), "mine"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True)
    seen, counts, modules = json.loads(told.stdout)
    assert counts == {"update": {"done": 100, "running": 50, "failed": 50, "queued": 100}}
    assert not {"torch", "numpy", "hydra"} & set(modules)
    own = {f"stages/update/{stage.key}" for stage in stages}
    touched = Counter(path for _, path in seen)
    assert (
        not {path for path in touched if path.startswith("stages")}
        - own
        - {f"{folder}/{name}" for folder in own for name in ("DONE", "FAILED", "claim-1")}
    )
    assert not [path for event, path in seen if path == "changes something"]
    assert Counter(event for event, _ in seen) == {"os.listdir": 300, "open": 200 + 3}
    assert max(touched.values()) == 1


def test_a_newer_job_wins_over_an_old_failure(store, plan, by_label):
    dense = by_label("dense")
    store.fail("dense", dense.key, "of an earlier try")
    for word, state in (("pending", "queued"), ("running", "running"), ("gone", "failed")):
        live = Live({dense.key: LiveJob("12", word, "Resources")})
        assert states(store, plan, live)["dense"] == state
        assert states(store, plan, live)["tune_1"] == ("blocked" if word == "gone" else "queued")


def test_a_job_that_waits_to_go_on_is_queued_though_its_claim_looks_alive(store, plan, by_label):
    dense = by_label("dense")
    put_claim(store, dense, job="12", host="elsewhere", machine="0badcafe")
    live = Live({dense.key: LiveJob("12", "pending", "BeginTime")}, alive=lambda holder: True)
    status = plan_status(store, plan, live)[dense.key]
    assert (status.state, status.error, status.job) == (State.QUEUED, "BeginTime", "12")


def test_what_a_site_cancels_for_a_failed_input_is_blocked(store, plan, by_label):
    store.fail("dense", by_label("dense").key, "broken")
    live = Live({by_label("update_1").key: LiveJob("12_1", "gone", "CANCELLED")})
    status = plan_status(store, plan, live)[by_label("update_1").key]
    assert (status.state, status.culprit) == (State.BLOCKED, by_label("dense").key)
