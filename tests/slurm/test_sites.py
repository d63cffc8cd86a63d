"""The templates for sites are clusters that spp can read."""

import shutil
from pathlib import Path

import pytest

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep

SITES = sorted((Path(__file__).parents[2] / "slurm" / "sites").glob("*.yaml"))


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.stem)
def test_a_template_is_a_cluster(site, tmp_path):
    (tmp_path / "conf" / "cluster").mkdir(parents=True)
    shutil.copy(site, tmp_path / "conf" / "cluster")
    words = ["debug=fast", f"cluster={site.stem}", f"paths.store={tmp_path}"]
    planned = plan_sweep(compose_points(words, multirun=False, config_dirs=[str(tmp_path / "conf")]))
    assert planned.cluster.name == "slurm"
    assert planned.cluster.signal_delay_s < 60 * min(s.resources["timeout_min"] for s in planned.plan.stages.values())


def test_there_are_templates():
    assert {site.stem for site in SITES} == {"a100", "a100_preemptible", "virtual"}
