import subprocess

import pytest

from spp.plan.cluster import ResourcesConfig
from spp.process import Process
from spp.schedule.queue import Job, Unreachable, find_by_name, job_liveness, sacct, scancel, squeue
from spp.schedule.retry import memory_gb
from spp.store.claim import Holder


@pytest.fixture
def waiting(fake_slurm, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    return fake_slurm


def sbatch(*options):
    command = ["sbatch", "--parsable", "--output=/dev/null", *options, "--wrap=true"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def holder(job):
    return Holder(Process("elsewhere", "0", 1, 1), job, 0, 0.0)


def test_squeue_tells_of_each_task_by_its_id(waiting):
    plain, array = sbatch("--job-name=one"), sbatch("--job-name=many", "--array=0,5", "--hold")
    found = squeue([plain, f"{array}_5", "999999"])
    assert sorted(found) == sorted([plain, f"{array}_0", f"{array}_5"])
    assert (found[plain].name, found[f"{array}_5"].name) == ("one", "many")
    assert {job.phase for job in found.values()} == {"pending"}
    assert squeue(["999999"]) == {}
    assert squeue([]) == {}


def test_jobs_are_found_by_name(waiting):
    array = sbatch("--job-name=many", "--array=0,5")
    sbatch("--job-name=other")
    assert find_by_name(["many", "nobody"], since=0.0) == {"many": array}
    assert find_by_name([], since=0.0) == {}


@pytest.mark.slurm
def test_what_a_user_has_set_for_squeue_hides_no_jobs(slurm, monkeypatch):
    job = sbatch("--hold")
    for name in ("SQUEUE_PARTITION", "SQUEUE_USERS", "SQUEUE_STATES", "SQUEUE_FORMAT2"):
        monkeypatch.setenv(name, "COMPLETED" if name == "SQUEUE_STATES" else "nobody")
        assert list(squeue([job])) == [job], name
    monkeypatch.setenv("SCANCEL_STATE", "RUNNING")
    scancel([job])
    assert squeue([job])[job].phase == "ended"


def test_no_answer_is_not_an_empty_queue(waiting):
    job = sbatch()
    (waiting / "down").touch()
    for question in (lambda: squeue([job], 0.0), lambda: find_by_name(["a"], 0.0, 0.0), lambda: scancel([job], 0.0)):
        with pytest.raises(Unreachable):
            question()
    assert job_liveness()(holder(job)) is None


def test_accounting_may_be_missing(waiting, monkeypatch):
    job = sbatch("--job-name=one")
    scancel([job])
    row = (sacct([job]) or {})[job]
    assert (row.name, row.state.partition(" ")[0]) == ("one", "CANCELLED")
    monkeypatch.setenv("FAKE_SLURM_SACCT", "0")
    assert sacct([job]) is None


def test_a_job_that_waits_or_runs_lives_and_one_that_is_gone_does_not(waiting):
    job, ended = sbatch(), sbatch()
    scancel([ended])
    alive = job_liveness()
    assert [alive(holder(name)) for name in (job, ended, "999999", "")] == [True, False, False, None]


def test_what_nobody_will_start_is_hopeless():
    hopeless = {
        reason
        for reason in (
            "DependencyNeverSatisfied",
            "launch failed requeued held",
            "Dependency",
            "BeginTime",
            "Resources",
        )
        if Job("1", "name", "PENDING", reason).is_hopeless
    }
    assert hopeless == {"DependencyNeverSatisfied", "launch failed requeued held"}


@pytest.mark.parametrize(
    ("text", "gb"), [("4000M", 3.90625), ("4G", 4), ("4Gn", 4), ("2Gc", 24), ("1T", 1024), ("0", None), ("?", None)]
)
def test_memory_as_sacct_tells_it(text, gb):
    resources = ResourcesConfig(tasks_per_node=4, cpus_per_task=3).plain()
    assert memory_gb(text, resources) == gb
