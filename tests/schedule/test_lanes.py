"""A cap on jobs at a time over all sweeps of a user, and job numbers that know their cluster, on the fake SLURM."""

import re

import pytest

from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule import queue
from spp.schedule.lanes import Lane, Lanes
from spp.schedule.slurm import cancel, live_of, submit
from spp.store.forms import is_job
from spp.store.store import Store

RESOURCES = {"gpus_per_node": 0, "timeout_min": 60}


class Job:
    """What a job of these tests does: it notes when it ran."""

    def __init__(self, root, sweep, batch):
        self.root, self.sweep, self.batch = root, sweep, batch

    def __call__(self):
        """Never called: jobs are queued and do not run."""

    def checkpoint(self):
        """Not needed."""


def sweep_of(name, num_points):
    """Each point is a chain of two stages of its own."""
    points = []
    resources = ClusterConfig(name="slurm", resources={"default": RESOURCES}).resources_of("dense").plain()
    for n in range(num_points):
        dense = Stage("dense", {"sweep": name, "n": n}, resources=resources)
        points.append(Point(f"n={n}", (), (Stage("update", {}, {"dense": dense}, resources=resources),), {}))
    return Plan.merge(points)


def send(store, name, num_points, **settings):
    plan = sweep_of(name, num_points)
    cluster = ClusterConfig(name="slurm", num_retries=0, resources={"default": RESOURCES}, **settings)
    store.write_plan(name, plan, cluster.plain())
    return plan, submit(plan, store, name, cluster, job=Job, code=None)


def most_at_once(scripts):
    """The longest antichain that SLURM could run at once, if every job took equally long: by playing the queue."""
    waits = {}
    for job, text in scripts.items():
        found = re.search(r"#SBATCH --dependency=(\S+)", text)
        waits[job] = set(re.findall(r"\d+", found[1])) if found else set()
    done, most = set(), 0
    while len(done) < len(waits):
        running = {job for job, needs in waits.items() if job not in done and needs <= done}
        assert running, "jobs that wait for each other"
        most = max(most, len(running))
        done |= running
    return most


def scripts_of(folder):
    return {path.stem: path.read_text() for path in folder.glob("[0-9]*.sh")}


@pytest.mark.parametrize("max_jobs", [1, 3])
def test_never_more_than_so_many_jobs_over_all_sweeps_and_stores(tmp_path, fake_slurm, monkeypatch, max_jobs):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    _, first = send(Store(tmp_path / "mine"), "a", 4, max_jobs=max_jobs)
    _, second = send(Store(tmp_path / "mine"), "b", 2, max_jobs=max_jobs)
    _, third = send(Store(tmp_path / "other"), "c", 3, max_jobs=max_jobs)
    assert [sent.num_jobs for sent in (first, second, third)] == [8, 4, 6]
    scripts = scripts_of(fake_slurm)
    assert len(scripts) == 18
    assert most_at_once(scripts) == max_jobs
    # A job that waits for a failed one is dropped, or its lane would stand still.
    assert all("--kill-on-invalid-dep=yes" in text for text in scripts.values())


def test_without_a_cap_nothing_waits_but_for_its_inputs(tmp_path, fake_slurm, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    _, sent = send(Store(tmp_path / "mine"), "a", 4)
    assert (sent.num_jobs, sent.num_arrays) == (8, 2)
    assert not any("afterany" in text or "spp-lane" in text for text in scripts_of(fake_slurm).values())


def test_a_job_goes_behind_its_input_where_it_waits_anyway():
    lanes = Lanes([Lane(0, ("7", "8")), Lane(1, ("9",)), Lane(2)])
    assert lanes.choose("").place == 2
    assert lanes.choose("afterok:8").place == 0
    assert lanes.choose("afterok:7").place == 2
    assert Lane(0, ("7", "8")).after("afterok:3") == "afterok:3,afterany:8"
    assert Lane(2).after(None) is None
    lanes.took(Lane(2), "10")
    assert lanes.choose("").place in (1, 2)


def test_job_numbers_of_another_cluster(tmp_path, fake_slurm, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    (fake_slurm / "alpha").mkdir()
    store = Store(tmp_path / "store")
    send(store, "here", 2)
    there, sent = send(store, "there", 2, clusters="alpha")
    assert sent.num_jobs == 4
    jobs = [row["job"] for row in store.read_jobs("there") if row.get("job")]
    assert all(job.endswith("@alpha") and is_job(job) for job in jobs)
    live = live_of(store, "there").jobs
    assert {key: job.state for key, job in live.items()} == dict.fromkeys(there.stages, "pending")
    assert {queue.cluster_of(job.job) for job in live.values()} == {"alpha"}
    # Numbers are equal on both clusters: what is ended there leaves alone what is here.
    numbers = {queue.number(job.job) for job in live.values()}
    assert numbers == {job.job for job in live_of(store, "here").jobs.values()}
    assert sorted(cancel(store, "there").ended) == sorted(job.job for job in live.values())
    assert {job.state for job in live_of(store, "here").jobs.values()} == {"pending"}
    assert {job.state for job in live_of(store, "there").jobs.values()} == {"gone"}


def test_jobs_of_one_cluster_do_not_wait_for_those_of_another(tmp_path, fake_slurm, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    (fake_slurm / "alpha").mkdir()
    store = Store(tmp_path / "store")
    plan, _ = send(store, "a", 1)
    cluster = ClusterConfig(name="slurm", clusters="alpha", resources={"default": RESOURCES})
    store.write_plan("b", plan, cluster.plain())
    with pytest.raises(ValueError, match=r"cluster\.clusters: dense .* is done by job 1 of this machine's cluster"):
        submit(plan, store, "b", cluster, job=Job, code=None)


def test_a_cluster_that_there_is_not_is_refused_in_one_line(tmp_path, fake_slurm):
    with pytest.raises(ValueError, match="No cluster 'beta' known") as caught:
        send(Store(tmp_path / "store"), "a", 1, clusters="beta")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"clusters: 'a,b' is not allowed"):
        ClusterConfig(name="slurm", clusters="a,b")


@pytest.mark.parametrize(
    ("job", "base", "number", "cluster"),
    [("12", "12", "12", ""), ("12_3", "12", "12_3", ""), ("12_3@alpha", "12@alpha", "12_3", "alpha")],
)
def test_parts_of_a_job(job, base, number, cluster):
    assert (queue.base(job), queue.number(job), queue.cluster_of(job)) == (base, number, cluster)
    assert queue.at(number, cluster) == job
    assert queue.task_of(base, 5) == queue.at(f"{queue.number(base)}_5", cluster)
