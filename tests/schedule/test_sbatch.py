"""One call of sbatch, on the fake SLURM."""

import re
import time

import pytest

from spp.plan.cluster import ClusterConfig
from spp.schedule.sbatch import submit_batch


@pytest.mark.parametrize("indices", [[0], [0, 1]], ids=["job", "array"])
def test_what_jobs_print_is_found_in_a_folder_whose_name_slurm_would_fill_in(indices, tmp_path, fake_slurm):
    folder = tmp_path / "100%N of 'é' %x%, \"x\"" / "jobs"
    cluster = ClusterConfig.read({"name": "slurm", "max_parallel": None}, "cluster")
    job = submit_batch(
        print, folder=folder, name="spp-test", indices=indices, resources=cluster.resources_of("dense"),
        cluster=cluster, dependency=None, begin_min=0, code=None,
    )  # fmt: skip
    names = [f"{job}_{index}" if len(indices) > 1 else job for index in indices]
    wanted = {f"{name}_0_result.pkl" for name in names} | {f"{name}_0_log.err" for name in names}
    deadline = time.monotonic() + 60
    while not wanted <= {path.name for path in folder.iterdir()}:
        assert time.monotonic() < deadline, sorted(path.name for path in folder.iterdir())
        time.sleep(0.1)
    assert [path.name for path in tmp_path.iterdir() if re.search(r"100[^%]", path.name)] == []
