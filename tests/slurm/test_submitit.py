"""submitit on both kinds of SLURM: what spp builds on, without spp."""

import os
import time

import submitit

from spp.plan.cluster import ClusterConfig, ResourcesConfig
from spp.schedule.sbatch import submit_batch


class Counter:
    """Counts on disk and goes on there after it was told to stop."""

    def __init__(self, path, goal):
        self.path, self.goal = path, goal

    def __call__(self):
        while (count := len(self.path.read_text())) < self.goal:
            self.path.write_text("x" * (count + 1))
            time.sleep(0.2)
        return count

    def checkpoint(self):
        return submitit.helpers.DelayedSubmission(self)


def _executor(folder):
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_use_srun=True)
    return executor


def test_a_function_returns_its_value(queue, tmp_path):
    assert _executor(tmp_path).submit(divmod, 17, 5).result() == (3, 2)


def test_a_preempted_function_goes_on_under_the_same_id(queue, tmp_path):
    path = tmp_path / "count"
    path.write_text("")
    job = _executor(tmp_path).submit(Counter(path, 40))
    queue.until(lambda: len(path.read_text()) > 3)
    queue.run("scancel", "--signal=USR2", job.job_id)
    queue.until(lambda: queue.rows()[job.job_id][0] == "PENDING")
    assert len(path.read_text()) < 40
    queue.expect({job.job_id: "COMPLETED"})
    assert job.result() == 40


def _fail_in_rank_1():
    if os.environ["SLURM_PROCID"] == "1":
        raise RuntimeError("planted")
    time.sleep(600)


def test_a_rank_that_fails_ends_the_others(queue, tmp_path):
    resources, cluster = ResourcesConfig(num_nodes=2, gpus_per_node=0, timeout_min=5), ClusterConfig(name="slurm")
    job = submit_batch(
        _fail_in_rank_1,
        folder=tmp_path,
        name="ranks",
        indices=[0],
        resources=resources,
        cluster=cluster,
        dependency=None,
        begin_min=0.0,
        code=None,
    )
    queue.expect({job: "FAILED"})
