import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.debug import run_in_process
from spp.schedule.events import What
from spp.store.claim import AlreadyClaimed, claim
from spp.store.store import Store


class Worker:
    """A worker in this process; the stages named in `broken` raise."""

    def __init__(self, broken=(), error=RuntimeError):
        self.broken, self.error, self.did = set(broken), error, []

    def __call__(self, root, kind, key):
        assert isinstance(root, Path)
        store = Store(root)
        with claim(store, kind, key):
            work = store.begin(kind, key)
            if work is None:
                return
            spec = store.spec(kind, key)
            assert all(store.is_done(ref["kind"], ref["key"]) for ref in spec["inputs"].values())
            self.did.append(spec["label"])
            if spec["label"] in self.broken:
                raise self.error(f"{spec['label']} is broken")
            (work / "artifact").write_text(spec["label"])
            store.finish(kind, key, {})


def run(plan, store, worker, **options):
    """The outcome and the events as (what, label, detail)."""
    events = []
    outcome = run_in_process(plan, store, worker, events.append, **options)
    return outcome, [(event.what, event.stage.label, event.detail) for event in events]


def test_all_stages_in_the_order_of_the_plan_and_each_once(plan, store):
    worker = Worker()
    outcome, events = run(plan, store, worker)
    assert outcome.ok
    assert list(outcome.done) == list(plan.stages)
    assert worker.did == ["dense", "update_1", "tune_1", "update_2", "tune_2", "other"]
    assert [(what, label) for what, label, _ in events] == [
        (what, label) for label in worker.did for what in (What.STARTED, What.DONE)
    ]


def test_second_run_finds_everything_done(plan, store):
    run(plan, store, Worker())
    worker = Worker()
    outcome, events = run(plan, store, worker)
    assert outcome.ok
    assert list(outcome.cached) == list(plan.stages)
    assert (outcome.done, worker.did) == ((), [])
    assert {what for what, _, _ in events} == {What.CACHED}


def test_failure_blocks_its_descendants_and_nothing_else(plan, store, labels, key_of):
    outcome, events = run(plan, store, Worker(broken=["update_1"]))
    assert labels(plan, outcome.failed) == ["update_1"]
    assert outcome.blocked == {key_of(plan, "tune_1"): key_of(plan, "update_1")}
    assert labels(plan, outcome.done) == ["dense", "update_2", "tune_2", "other"]
    assert not outcome.ok
    assert (What.FAILED, "update_1", "RuntimeError: update_1 is broken") in events
    assert (What.BLOCKED, "tune_1", key_of(plan, "update_1")) in events
    failure = store.failure("update", key_of(plan, "update_1"))
    assert "Traceback" in failure["traceback"]


def test_next_run_does_what_is_missing_only(plan, store, labels):
    run(plan, store, Worker(broken=["update_1"]))
    worker = Worker()
    outcome, _ = run(plan, store, worker)
    assert outcome.ok
    assert worker.did == ["update_1", "tune_1"]
    assert labels(plan, outcome.cached) == ["dense", "update_2", "tune_2", "other"]


def test_what_is_done_blocks_nothing_though_its_input_was_removed_and_fails_now(plan, store, labels, key_of):
    run(plan, store, Worker(broken=["tune_1"]))
    shutil.rmtree(store.stage_dir("dense", key_of(plan, "dense")))
    worker = Worker(broken=["dense"])
    outcome, _ = run(plan, store, worker)
    assert worker.did == ["dense", "tune_1"]
    assert labels(plan, outcome.done) == ["tune_1"]
    assert (labels(plan, outcome.failed), outcome.blocked) == (["dense"], {})


@st.composite
def dags_with_broken_stages(draw):
    pool = []
    for n in range(draw(st.integers(1, 7))):
        chosen = draw(st.lists(st.sampled_from(pool), max_size=2, unique=True)) if pool else []
        inputs = {f"in_{i}": stage for i, stage in enumerate(chosen)}
        pool.append(Stage("step", {"n": n}, inputs, label=str(n)))
    broken = draw(st.sets(st.sampled_from([stage.label for stage in pool])))
    return Plan.merge([Point("all", (), tuple(pool))]), broken


@settings(max_examples=15, deadline=None)
@given(dags_with_broken_stages())
def test_outcome_of_random_graphs_agrees_with_plain_recursion(tmp_path_factory, case):
    plan, broken = case
    root = tmp_path_factory.mktemp("store")
    outcome, _ = run(plan, Store(root), Worker(broken))

    def broken_above(stage):
        return {
            key
            for parent in stage.inputs.values()
            for key in (({parent.key} if parent.label in broken else set()) | broken_above(parent))
        }

    for key, stage in plan.stages.items():
        above = broken_above(stage)
        assert (key in outcome.done) == (stage.label not in broken and not above)
        assert (key in outcome.failed) == (stage.label in broken and not above)
        assert (key in outcome.blocked) == bool(above)
        if above:
            assert outcome.blocked[key] in above & set(outcome.failed)
    shutil.rmtree(root)


def test_worker_that_leaves_no_marker_has_failed(plan, store, labels):
    outcome, events = run(plan, store, lambda root, kind, key: None)
    assert labels(plan, outcome.failed) == ["dense", "other"]
    assert (What.FAILED, "dense", "the worker returned without a DONE marker") in events


def test_old_failure_is_not_taken_for_a_new_one(store):
    stage = Stage("step", {"n": 1}, label="step")
    plan = Plan.merge([Point("p", (), (stage,))])
    store.fail("step", stage.key, "ValueError: of yesterday")

    def fail_before_begin(root, kind, key):
        raise ImportError("of today")

    _, events = run(plan, store, fail_before_begin)
    assert events[-1] == (What.FAILED, "step", "ImportError: of today")


def test_ctrl_c_passes_through_and_the_next_run_goes_on(plan, store, key_of):
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, Worker(broken=["update_1"], error=KeyboardInterrupt))
    assert store.failure("update", key_of(plan, "update_1")) is None
    worker = Worker()
    outcome, _ = run(plan, store, worker)
    assert outcome.ok
    assert "dense" not in worker.did
    assert "update_1" in worker.did


@pytest.mark.parametrize("word", ["finish", "fail", "give back"])
def test_stage_of_another_process_is_awaited_and_the_rest_done_meanwhile(plan, store, hold, say, key_of, labels, word):
    held = plan.stages[key_of(plan, "update_1")]
    holder = hold(held)
    worker = Worker()
    told = []

    def observe(event):
        told.append((event.what, event.stage.label))
        if event.what is What.DONE and event.stage.label == "other":
            say(holder, word)

    outcome = run_in_process(plan, store, worker, observe, poll_seconds=0.02)
    assert (What.WAITING, "update_1") in told
    if word == "finish":
        assert outcome.ok
        assert "update_1" not in worker.did
        assert store.summary("update", held.key) == {"by": "holder"}
    elif word == "fail":
        assert outcome.blocked == {key_of(plan, "tune_1"): held.key}
        assert labels(plan, outcome.failed) == ["update_1"]
    else:
        assert outcome.ok
        assert worker.did[-2:] == ["update_1", "tune_1"]


def test_stage_of_a_process_that_dies_is_done_here(plan, store, hold, key_of):
    holder = hold(plan.stages[key_of(plan, "tune_2")])
    worker = Worker()
    seen = []

    def observe(event):
        seen.append(event.what)
        if event.what is What.DONE and event.stage.label == "other":
            holder.kill()
            holder.wait()

    assert run_in_process(plan, store, worker, observe, poll_seconds=0.02).ok
    assert What.WAITING in seen
    assert worker.did[-1] == "tune_2"


def test_claim_that_another_process_gets_at_the_last_moment_is_awaited(plan, store, hold, say, key_of):
    worker = Worker()
    holders = []

    def late(root, kind, key):
        if key == key_of(plan, "dense") and not holders:
            holders.append(hold(plan.stages[key]))
            with pytest.raises(AlreadyClaimed) as caught:
                worker(root, kind, key)
            say(holders[0], "finish")
            raise caught.value
        worker(root, kind, key)

    outcome, events = run(plan, store, late, poll_seconds=0.02)
    assert outcome.ok
    assert "dense" not in worker.did
    waiting = [detail for what, label, detail in events if (what, label) == (What.WAITING, "dense")]
    assert len(waiting) == 1
    assert f"process {holders[0].pid}" in waiting[0]
