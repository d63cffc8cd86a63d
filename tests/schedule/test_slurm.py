import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule import batch_records, queue, slurm
from spp.schedule.status import State, sweep_status
from spp.store.store import Store

CLUSTER = ClusterConfig(name="slurm", num_retries=0, backoff_min=0.01)
SETTLED = (State.DONE, State.FAILED, State.BLOCKED, State.LOST, State.CANCELLED)


@pytest.fixture
def submit(store, job):
    """Writes a plan down and submits it."""

    def submit_one(plan, sweep="first", cluster=CLUSTER):
        store.write_plan(sweep, plan, cluster.plain())
        return slurm.submit(plan, store, sweep, cluster, job=job, code=None)

    return submit_one


@pytest.fixture
def settled(store):
    """States by label, once nothing is to be expected any more."""

    def wait(sweep="first", seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            stages = sweep_status(store, sweep, slurm.live_of(store, sweep)).stages
            if all(stage.state in SETTLED for stage in stages):
                return {stage.label: stage.state.value for stage in stages}
            assert time.monotonic() < deadline, stages
            time.sleep(0.2)

    return wait


@pytest.fixture
def waiting(fake_slurm, monkeypatch):
    """Jobs are queued and never start."""
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    return fake_slurm


def calls(folder, command):
    return [line for line in (folder / "calls").read_text().splitlines() if line.startswith(command)]


def queued(store):
    """Labels of the stages in the queue, each as often as jobs would do it, with their dependencies."""
    rows = subprocess.run(["squeue", "-h", "-r", "-o", "%i|%j|%E"], capture_output=True, text=True, check=True).stdout
    found = []
    for row in rows.splitlines():
        job, name, dependency = row.split("|")
        sweep, batch = next(
            (s, b.stem) for s in store.list_sweeps() for b in (store.sweep_dir(s) / "jobs").glob("*.json")
            if batch_records.job_name(s, b.stem) == name
        )  # fmt: skip
        kind, key = store.read_batch(sweep, batch)["tasks"][job.partition("_")[2] or "0"]
        found.append((store.spec(kind, key)["label"], dependency))
    return found


def last_batch(store, sweep, key):
    """The content of the batch that a stage was submitted with last."""
    return store.read_batch(
        sweep, batch_records.newest_tasks(batch_records.read_records(store, sweep))[key].record.batch
    )


def test_everything_runs_in_order_and_the_next_call_finds_it_done(store, plan, submit, settled, fake_slurm):
    sent = submit(plan)
    assert (sent.num_jobs, sent.num_arrays, sent.cached, sent.awaited) == (6, 3, (), ())
    assert set(settled().values()) == {"done"}
    jobs = {store.summary(stage.kind, key)["began"]: stage.label for key, stage in plan.stages.items()}
    assert len(jobs) == 6
    again = submit(plan)
    assert (again.num_jobs, again.cached) == (0, tuple(plan.stages))
    assert len(calls(fake_slurm, "sbatch")) == 3


def test_a_second_call_waits_for_what_the_first_has_submitted(store, plan, submit, waiting):
    first, second = submit(plan), submit(plan)
    assert (second.num_jobs, sorted(second.awaited)) == (0, sorted(plan.stages))
    assert Counter(label for label, _ in queued(store)) == dict.fromkeys((s.label for s in plan.stages.values()), 1)
    assert first.num_jobs == 6


def test_another_sweep_shares_jobs_and_keeps_them_from_being_cancelled(store, plan, submit, waiting, key_of):
    submit(plan)
    update = plan.stages[key_of(plan, "update_1")]
    extra = Stage("tune", {"name": "extra"}, {"path": update}, label="extra", resources=update.resources)
    sent = submit(Plan.merge([Point("other", (), (extra,))]), "second")
    assert (sent.num_jobs, len(sent.awaited)) == (1, 2)
    dependency = dict(queued(store))["extra"]
    assert dependency.startswith("afterok:")
    cancelled = slurm.cancel(store, "first")
    assert (len(cancelled.ended), len(cancelled.kept)) == (4, 2)
    assert sorted(label for label, _ in queued(store)) == ["dense", "extra", "update_1"]
    assert len(slurm.cancel(store, "second").ended) == 1
    assert len(slurm.cancel(store, "first").ended) == 2
    assert queued(store) == []


@pytest.mark.slow
def test_killed_at_any_write_it_neither_loses_nor_doubles_a_job(tmp_path, chains, job, waiting, monkeypatch):
    monkeypatch.setattr(batch_records, "SETTLE_SECONDS", 0.3)
    plan = chains()
    number = 0
    while True:
        store = Store(tmp_path / f"store{number}")
        (waiting / "state.json").unlink(missing_ok=True)
        store.write_plan("sweep", plan, CLUSTER.plain())
        was_killed = submit_and_die(plan, store, job, at_write=number)
        slurm.submit(plan, store, "sweep", CLUSTER, job=job, code=None)
        assert Counter(label for label, _ in queued(store)) == dict.fromkeys((s.label for s in plan.stages.values()), 1)
        if not was_killed:
            assert number > 10
            return
        number += 1


def submit_and_die(plan, store, job, at_write):
    """Submit in a process that is killed before its nth write that lasts; False if there are not so many."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    seen = [0]

    def watch(event, arguments):
        appends = event == "open" and str(arguments[0]).endswith("jobs.jsonl") and "a" in str(arguments[1])
        replaces = event == "os.rename" and "stages" not in str(arguments[1])
        if appends or replaces or (event == "subprocess.Popen" and arguments[1][0] == "sbatch"):
            if seen[0] == at_write:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1

    sys.addaudithook(watch)
    slurm.submit(plan, store, "sweep", CLUSTER, job=job, code=None)
    os._exit(0)


@pytest.mark.slow
def test_a_failure_blocks_its_descendants_and_retry_runs_what_is_missing(
    store, chains, submit, settled, job, fake_slurm, key_of
):
    plan = chains(update_1={"config": {"dies": "fails"}})
    submit(plan)
    assert settled() == {
        "dense": "done",
        "update_1": "failed",
        "tune_1": "blocked",
        "update_2": "done",
        "tune_2": "done",
        "other": "done",
    }
    assert slurm.retry(store, "first", job=job, code=None, automatic=True).num_jobs == 0
    # Nothing stays in the queue that can never run.
    assert [job for job in queue.squeue(["1"]).values() if job.phase == "pending"] == []
    mended = chains()
    update = mended.stages[key_of(mended, "update_1")]
    assert submit(mended).num_jobs == 2
    assert set(settled().values()) == {"done"}
    assert store.is_done("update", update.key)


@pytest.mark.slow
def test_retry_clears_the_failure_and_runs_only_what_is_missing(
    store, chains, submit, settled, job, fake_slurm, key_of
):
    plan = chains()
    store.write_plan("first", plan, CLUSTER.plain())
    update = plan.stages[key_of(plan, "update_1")]
    submit(plan)
    settled()
    for label in ("update_1", "tune_1"):
        stage = plan.stages[key_of(plan, label)]
        (store.stage_dir(stage.kind, stage.key) / "DONE").unlink()
        subprocess.run(["rm", "-r", str(store.artifacts_dir(stage.kind, stage.key))], check=True)
    store.fail("update", update.key, "ValueError: planted")
    assert slurm.retry(store, "first", job=job, code=None, automatic=True).num_jobs == 0
    assert slurm.retry(store, "first", job=job, code=None).num_jobs == 2
    assert set(settled().values()) == {"done"}
    assert store.failure("update", update.key) is None


@pytest.mark.slow
def test_what_the_machine_broke_is_tried_again_later_and_not_for_ever(
    store, chains, submit, settled, job, fake_slurm, key_of, tmp_path
):
    plan = chains(update_1={"config": {"broken_until": str(tmp_path / "mended")}})
    cluster = ClusterConfig(name="slurm", num_retries=0, backoff_min=0.01)
    submit(plan, cluster=cluster)
    states = settled()
    assert (states["update_1"], states["tune_1"]) == ("lost", "blocked")
    key = key_of(plan, "update_1")
    assert slurm.retry(store, "first", job=job, code=None, automatic=True).num_jobs == 0
    store.write_plan("first", plan, {**cluster.plain(), "num_retries": 2, "max_array_size": 7})
    for attempt in (1, 2):
        # The tender is another program, which has tests of its own.
        assert submit_again(store, job) == 2
        assert last_batch(store, "first", key)["attempts"] == {key: attempt}
        assert settled()["update_1"] == "lost"
    assert submit_again(store, job) == 0
    (tmp_path / "mended").touch()
    assert slurm.retry(store, "first", job=job, code=None).num_jobs == 2
    assert set(settled().values()) == {"done"}


def submit_again(store, job):
    sent = slurm.retry(store, "first", job=job, code=None, automatic=True).num_jobs
    queue.scancel(submission_tenders(store))
    return sent


def submission_tenders(store):
    return [row["tender"] for row in store.read_jobs("first") if "tender" in row]


@pytest.mark.slow
def test_out_of_memory_and_out_of_time_get_more(store, chains, submit, settled, job, fake_slurm, key_of, tmp_path):
    broken = {"broken_until": str(tmp_path / "mended")}
    plan = chains(
        update_1={"config": {**broken, "says": "slurmstepd: error: Detected 1 oom-kill event(s)"}},
        update_2={"config": {**broken, "says": "Job not requeued because: timed-out too many times."}},
        dense={"resources": {"mem_gb": 4.0, "timeout_min": 30}},
    )
    for stage in plan.stages.values():
        stage.resources.update(mem_gb=4.0, timeout_min=30)
    submit(plan)
    assert Counter(settled().values()) == {"lost": 2, "blocked": 2, "done": 2}
    (tmp_path / "mended").touch()
    assert slurm.retry(store, "first", job=job, code=None).num_jobs == 4
    asked = [last_batch(store, "first", key_of(plan, f"update_{n}"))["resources"] for n in (1, 2)]
    assert [(given["mem_gb"], given["timeout_min"]) for given in asked] == [(6.0, 30), (4.0, 45)]
    assert set(settled().values()) == {"done"}
    assert [line for line in calls(fake_slurm, "sbatch") if "6144M" in script_of(line)] != []


def script_of(call):
    return Path(call.split()[-1]).read_text()


def test_somebody_elses_job_under_an_id_of_ours_does_not_count(store, plan, submit, waiting):
    submit(plan)
    state = json.loads((waiting / "state.json").read_text())
    text = json.dumps(state).replace("spp-first-", "spp-alien-")
    (waiting / "state.json").write_text(text)
    assert {job.state for job in slurm.live_of(store, "first").jobs.values()} == {"gone"}
    assert submit(plan).num_jobs == 6
    assert slurm.cancel(store, "first").kept == ()
    assert "spp-alien-" in (waiting / "state.json").read_text()


def test_a_controller_that_is_away_makes_nobody_lost(store, plan, submit, waiting, monkeypatch):
    submit(plan)
    (waiting / "down").touch()
    live = slurm.live_of(store, "first")
    assert live.jobs == {}
    assert "controller" in live.note
    assert {stage.state for stage in sweep_status(store, "first", live).stages} == {State.QUEUED}
    monkeypatch.setattr(queue, "PATIENCE_SECONDS", 0.0)
    for action in (lambda: submit(plan, "second"), lambda: slurm.cancel(store, "first")):
        with pytest.raises(ValueError, match=r"^cluster: .*; allowed: .*; .*$") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_submission_waits_for_the_controller_to_come_back(store, plan, submit, waiting):
    (waiting / "down").touch()
    threading.Timer(2.0, (waiting / "down").unlink).start()
    assert submit(plan).num_jobs == 6
    assert len(queued(store)) == 6


def test_a_refusal_is_told_in_one_line_and_the_same_call_goes_on(store, chains, submit, waiting):
    for stage in (plan := chains()).stages.values():
        stage.resources.update(sbatch={"no-such-option": 1} if stage.kind == "tune" else {})
    with pytest.raises(ValueError, match="no-such-option") as caught:
        submit(plan)
    assert "\n" not in str(caught.value)
    assert len(queued(store)) == 4
    assert submit(chains()).num_jobs == 2
    assert len(queued(store)) == 6


def test_what_waits_for_a_job_that_failed_after_its_stage_was_done_is_lost(store, plan, submit, waiting, key_of):
    submit(plan)
    dense = plan.stages[key_of(plan, "dense")]
    scancel_stage(store, dense)
    store.begin("dense", dense.key)
    store.finish("dense", dense.key, {})
    states = {s.label: s for s in sweep_status(store, "first", slurm.live_of(store, "first")).stages}
    assert (states["update_1"].state, states["tune_1"].state) == (State.LOST, State.BLOCKED)
    assert states["update_1"].error == "DependencyNeverSatisfied"
    assert submit(plan).num_jobs == 4
    assert Counter(label for label, _ in queued(store)) == dict.fromkeys(
        (s.label for s in plan.stages.values() if s.label != "dense"), 1
    )


def scancel_stage(store, stage):
    task = batch_records.newest_tasks(batch_records.read_records(store, "first"))[stage.key]
    subprocess.run(["scancel", task.job], check=True)


def test_a_submission_that_died_long_ago_is_looked_up(store, plan, waiting):
    store.write_plan("first", plan)
    stages = list(plan.stages.values())
    ages = {"now": 0.0, "sent": 120.0, "never": 120.0}
    for stage, (batch, age) in zip(stages, ages.items(), strict=False):
        tasks = {"0": [stage.kind, stage.key]}
        content = {"time": time.time() - age, "tasks": tasks, "resources": {}, "attempts": {}}
        batch_records.announce(store, "first", batch, content)
    name = f"--job-name={batch_records.job_name('first', 'sent')}"
    command = ["sbatch", "--parsable", "--output=/dev/null", name, "--wrap=true"]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    jobs = slurm.live_of(store, "first").jobs
    assert {key: (live.job, live.state) for key, live in jobs.items()} == {
        stages[0].key: ("", "pending"),
        stages[1].key: (job, "pending"),
    }


def test_srun_is_told_the_cores_of_a_task(store, chains, submit, settled, fake_slurm, tmp_path):
    setup = [f"echo $SRUN_CPUS_PER_TASK >> {tmp_path / 'cores'}"]
    submit(chains(other={"resources": {"cpus_per_task": 3, "setup": setup}}))
    assert set(settled().values()) == {"done"}
    assert (tmp_path / "cores").read_text().split() == ["3"]


def test_arrays_are_throttled_and_the_tender_waits_for_a_failure(store, plan, submit, waiting):
    submit(plan, cluster=ClusterConfig(name="slurm", max_parallel=5, num_retries=1))
    scripts = [script_of(line) for line in calls(waiting, "sbatch")]
    assert sum("%5" in script for script in scripts) == 3
    (tender,) = [line for line in calls(waiting, "sbatch") if "tender" in line]
    assert "?afternotok:" in tender
    assert "retry first --automatic" in script_of(tender)


def test_without_slurm_here_it_says_so(store, plan, submit, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="sbatch is not on PATH"):
        submit(plan)


def test_a_sweep_that_was_never_submitted_has_no_jobs(store, plan):
    store.write_plan("first", plan)
    assert dict(slurm.live_of(store, "first").jobs) == {}
