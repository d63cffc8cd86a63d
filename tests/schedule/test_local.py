import json
import os
import signal
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.events import What
from spp.schedule.local import run_local
from spp.schedule.status import State, plan_status

# Runs the plan of a sweep until it is told to stop.
SCHEDULER = """
import json, sys
from spp.schedule.local import run_local
from spp.store.store import Store
root, sweep, command, server = sys.argv[1:]
store = Store(root)
run_local(
    store.read_plan(sweep), store, max_parallel=2, gpu_ids=(), grace_seconds=5,
    command=lambda kind, key: [*json.loads(command), kind, key], server=json.loads(server),
    observe=lambda event: print(event.what, event.stage.label, flush=True),
)
"""


def run(plan, store, workers, **options):
    events = []
    settings = {"max_parallel": 2, "gpu_ids": (), "wait_seconds": 0.05, "observe": events.append, **options}
    outcome = run_local(plan, store, **{"command": workers.command, "server": workers.server, **settings})
    return outcome, events


def independent(*configs, gpus=0):
    """A plan of stages that need each other not at all."""
    stages = [
        Stage("step", {"name": f"s{n}", **config}, label=f"s{n}", resources={"gpus_per_node": config.get("gpus", gpus)})
        for n, config in enumerate(configs)
    ]
    return Plan.merge([Point("all", (), tuple(stages))])


def spans(plan, store):
    """When each stage ran and with which GPUs: (began, ended, ids)."""
    summaries = [store.summary(stage.kind, key) for key, stage in plan.stages.items()]
    return [(s["began"], s["ended"], [g for g in s["gpus"].split(",") if g]) for s in summaries]


def overlapping(one, other):
    return one[0] < other[1] and other[0] < one[1]


def most_at_once(intervals):
    return max(sum(began <= start < ended for began, ended, _ in intervals) for start, _, _ in intervals)


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_all_stages_run_once_with_their_inputs_done(plan, store, workers, labels):
    outcome, events = run(plan, store, workers)
    assert outcome.ok
    assert sorted(outcome.done) == sorted(plan.stages)
    for key, stage in plan.stages.items():
        assert store.verify(stage.kind, key) == []
        for parent in stage.inputs.values():
            ended = store.summary(parent.kind, parent.key)["ended"]
            assert ended <= store.summary(stage.kind, key)["began"]
    again, events = run(plan, store, workers)
    assert list(again.cached) == list(plan.stages)
    assert {event.what for event in events} == {What.CACHED}


def test_one_at_a_time_goes_depth_first(plan, store, workers):
    _, events = run(plan, store, workers, max_parallel=1)
    started = [event.stage.label for event in events if event.what is What.STARTED]
    assert started == ["dense", "update_1", "tune_1", "update_2", "tune_2", "other"]
    assert most_at_once(spans(plan, store)) == 1


def test_several_at_once_but_no_more_than_allowed(store, workers):
    plan = independent(*[{"seconds": 0.4}] * 5)
    run(plan, store, workers, max_parallel=3)
    assert 1 < most_at_once(spans(plan, store)) <= 3


def test_failure_blocks_its_descendants_and_nothing_else(chains, store, workers, labels, key_of):
    plan = chains(update_1={"config": {"dies": "fails"}})
    outcome, events = run(plan, store, workers)
    assert labels(plan, outcome.failed) == ["update_1"]
    assert outcome.blocked == {key_of(plan, "tune_1"): key_of(plan, "update_1")}
    assert sorted(labels(plan, outcome.done)) == ["dense", "other", "tune_2", "update_2"]
    failed = [event.detail for event in events if event.what is What.FAILED]
    assert failed == ["ValueError: update_1 is broken"]


@pytest.mark.parametrize(
    ("dies", "error"),
    [
        ("killed", "the worker was killed by SIGKILL (out of memory?)"),
        ("before", "the worker ended with exit code 3 and without a marker"),
    ],
)
def test_worker_that_dies_without_a_marker_gets_one_with_the_end_of_its_log(
    chains, store, workers, key_of, dies, error
):
    plan = chains(update_1={"config": {"dies": dies}})
    outcome, _ = run(plan, store, workers)
    key = key_of(plan, "update_1")
    assert outcome.failed == (key,)
    failure = store.failure("update", key)
    assert failure["error"].startswith(error)
    assert "hello from update_1" in failure["traceback"]
    assert not store.is_done("update", key)
    status = plan_status(store, plan)
    assert status[key].state is State.FAILED
    assert status[key_of(plan, "tune_1")].culprit == key


def test_output_of_every_try_is_in_a_log_of_its_own(store, workers):
    plan = independent({"dies": "before"})
    logs = []
    for _ in range(2):
        _, events = run(plan, store, workers)
        logs += [event.detail for event in events if event.what is What.STARTED]
    folder = store.logs_dir("step", next(iter(plan.stages)))
    assert sorted(str(path) for path in folder.iterdir()) == sorted(logs)
    assert [Path(log).read_text() for log in logs] == ["hello from s0\n"] * 2


def test_gpus_are_not_shared_and_others_are_not_seen(store, workers):
    needs = [1, 2, 0, 1, 1, 0, 2]
    plan = independent(*[{"gpus": n, "seconds": 0.15} for n in needs])
    outcome, _ = run(plan, store, workers, max_parallel=4, gpu_ids=["4", "7"])
    assert outcome.ok
    ran = spans(plan, store)
    assert [len(ids) for _, _, ids in ran] == needs
    assert {gpu for _, _, ids in ran for gpu in ids} == {"4", "7"}
    for one, other in combinations(ran, 2):
        assert not (overlapping(one, other) and set(one[2]) & set(other[2]))


def test_stage_with_many_gpus_is_not_overtaken_by_later_ones_with_few(store, workers):
    """While s0 holds one of two GPUs, s1 waits for both; s2 could start on the other but has to wait for s1."""
    plan = independent({"gpus": 1, "seconds": 0.3}, {"gpus": 2}, {"gpus": 1}, {"gpus": 0})
    _, events = run(plan, store, workers, max_parallel=4, gpu_ids=["0", "1"])
    started = [event.stage.label for event in events if event.what is What.STARTED]
    assert started == ["s0", "s3", "s1", "s2"]


def test_impossible_wishes_are_refused_before_anything_starts(store, workers):
    plan = independent({}, {"gpus": 2})
    refusal = r"^resources\.gpus_per_node: 2 is not allowed for s1: must be <= 1 \(GPUs here: 0\)"
    with pytest.raises(ValueError, match=refusal):
        run(plan, store, workers, gpu_ids=["0"])
    with pytest.raises(ValueError, match=r"^max_parallel: 0 is not allowed: must be >= 1"):
        run(plan, store, workers, max_parallel=0)
    assert not store.root.exists()


@pytest.mark.parametrize("word", ["finish", "give back"])
def test_stage_of_another_process_is_awaited(plan, store, workers, hold, say, key_of, word):
    held = key_of(plan, "update_1")
    holder = hold(plan.stages[held])
    told = []

    def observe(event):
        told.append((event.what, event.stage.label))
        if (event.what, event.stage.label) == (What.DONE, "tune_2"):
            say(holder, word)

    outcome, _ = run(plan, store, workers, observe=observe)
    assert outcome.ok
    assert (What.WAITING, "update_1") in told
    assert ("by" in store.summary("update", held)) == (word == "finish")


def test_worker_that_meets_a_claim_has_not_failed(plan, store, workers, hold, say, key_of):
    """The claim comes after the scheduler has looked and before its worker does."""
    held = key_of(plan, "dense")
    holders = []

    def observe(event):
        if event.what is What.STARTED and event.stage.key == held:
            holders.append(hold(plan.stages[held]))
        if event.what is What.WAITING:
            say(holders[0], "finish")

    outcome, _ = run(plan, store, workers, observe=observe)
    assert outcome.ok
    assert store.summary("dense", held) == {"by": "holder"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_ends_the_workers_with_their_helpers_and_the_next_run_goes_on(
    chains, store, workers, start, number, code
):
    plan = chains(update_1={"config": {"spawns": True, "seconds": 60}})
    store.write_plan("sweep", plan)
    scheduler = start_scheduler(start, store, workers)
    wait_for((store.root / "pids").exists)
    wait_for(lambda: len((store.root / "pids").read_text().split()) == 2)
    pids = [int(pid) for pid in (store.root / "pids").read_text().split()]
    scheduler.send_signal(number)
    assert scheduler.wait(120) == code
    wait_for(lambda: not any(lives(pid) for pid in pids))
    states = {status.label: status.state for status in plan_status(store, plan).values()}
    assert states["dense"] is State.DONE
    assert (states["update_1"], states["tune_1"]) == (State.QUEUED, State.QUEUED)
    quick = replace(workers, code=workers.code.replace('config.get("seconds", 0)', "0"))
    outcome, _ = run(plan, store, quick)
    assert outcome.ok
    os.kill(int((store.root / "pids").read_text().split()[1]), signal.SIGKILL)


def start_scheduler(start, store, workers):
    """A process that runs the plan of the sweep "sweep"."""
    command = workers.command("", "")[:-2]
    return start(SCHEDULER, store.root, "sweep", json.dumps(command), json.dumps(workers.server))


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_are_handled_as_before_afterwards(store, workers):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(independent({}), store, workers)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
