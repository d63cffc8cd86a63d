import os
import subprocess
import sys

from spp.cli.job import StageJob
from spp.plan.spec import Stage
from spp.store.store import Store

RUN = """
import sys
from spp.cli.job import StageJob
StageJob(*sys.argv[1:])()
print("the end")
"""


def run_job(store, tasks, **environment):
    store.write_batch("sweep", "batch", {"tasks": tasks})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    command = [sys.executable, "-c", RUN, str(store.root), "sweep", "batch"]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True)


def test_a_task_does_the_stage_under_its_index_and_prints_to_its_log(tmp_path):
    store = Store(tmp_path)
    # Of a kind that does not exist, so that the right stage shows itself by its failure.
    stages = {index: Stage("nokind", {"index": index}) for index in (3, 7)}
    for stage in stages.values():
        store.put_spec(stage)
    tasks = {index: [stage.kind, stage.key] for index, stage in stages.items()}
    array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "7", "SLURM_JOB_ID": "19", "SLURM_RESTART_COUNT": "2"}
    done = run_job(store, tasks, **array)
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == ("", "")
    assert store.failure("nokind", stages[7].key) is not None
    assert store.failure("nokind", stages[3].key) is None
    (log,) = store.logs_dir("nokind", stages[7].key).iterdir()
    assert log.name.endswith("-job12_7-r2.log")
    assert "Error" in log.read_text()


def test_a_stage_that_is_done_ends_well_at_once(tmp_path):
    store, stage = Store(tmp_path), Stage("nokind", {})
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, {})
    done = run_job(store, {0: [stage.kind, stage.key]}, SLURM_JOB_ID="12")
    assert done.returncode == 0
    (log,) = store.logs_dir(stage.kind, stage.key).iterdir()
    assert log.read_text().endswith("the end\n")


def test_after_a_time_limit_the_same_is_queued_again():
    job = StageJob("root", "sweep", "batch")
    assert job.checkpoint().function == job
