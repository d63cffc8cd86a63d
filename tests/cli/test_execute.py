import subprocess

import pytest

from spp.cli.execute import check_fits, worker_command
from spp.cli.main import main
from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.trust import hash_of


def plan_of(**runtime):
    stage = Stage("update", {}, runtime=runtime)
    return Plan.merge([Point("point", (), (stage,))]), stage


def test_a_worker_runs_the_code_of_the_snapshot_wherever_it_starts(sweep, tmp_path):
    store, _ = sweep
    for folder, text in (("code", "the snapshot"), ("here", "where it was started")):
        package = tmp_path / folder / "spp" / "stages"
        package.mkdir(parents=True)
        for init in (package.parent / "__init__.py", package / "__init__.py"):
            init.write_text("")
        (package / "worker.py").write_text(f"import sys; print({text!r}, sys.argv[1:])")
    plan, stage = plan_of()
    command = worker_command(store, plan, as_snapshot(tmp_path / "code"))("update", stage.key)
    done = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, check=True)
    assert done.stdout == f"the snapshot {[str(store.root), 'update', stage.key]}\n"


def as_snapshot(folder):
    """The folder under the name that a snapshot with its content has."""
    package = folder / "spp"
    files = {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*") if path.is_file()}
    return folder.rename(folder.with_name(hash_of(files)))


@pytest.mark.slow
def test_a_stage_of_several_processes_gets_them_and_their_code(sweep, tmp_path):
    store, _ = sweep
    package = tmp_path / "code" / "spp" / "stages"
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        init.write_text("")
    # Each writes a file of its own: what several processes print at once may lie in one line.
    text = "import os, pathlib, sys\nrank, size = os.environ['RANK'], os.environ['WORLD_SIZE']\n"
    text += f"pathlib.Path({str(tmp_path)!r}, rank).write_text(' '.join([size, *sys.argv[1:]]))\n"
    (package / "worker.py").write_text(text)
    plan, stage = plan_of(devices=2)
    code = as_snapshot(tmp_path / "code")
    subprocess.run(worker_command(store, plan, code)("update", stage.key), check=True, capture_output=True)
    for rank in "01":
        assert (tmp_path / rank).read_text() == f"2 {store.root} update {stage.key}"


@pytest.mark.parametrize(
    ("cluster", "runtime", "field"),
    [
        ("debug", {"devices": 2}, "cluster.resources.update.tasks_per_node: 2"),
        ("debug", {"num_nodes": 2}, "cluster.resources.update.num_nodes: 2"),
        ("local", {"devices": 2, "num_nodes": 2}, "cluster.resources.update.num_nodes: 2"),
    ],
)
def test_a_cluster_is_not_asked_for_what_it_cannot_start(cluster, runtime, field):
    plan, _ = plan_of(**runtime)
    with pytest.raises(ValueError, match=f"{field} is too much for cluster={cluster}; allowed: 1; use cluster="):
        check_fits(plan, ClusterConfig(name=cluster))
    check_fits(plan, ClusterConfig(name="slurm"))


def test_nothing_is_written_before_a_refusal(tmp_path, capsys):
    words = ["debug=fast", "cluster.resources.prune.tasks_per_node=2", f"paths.store={tmp_path / 'store'}"]
    assert main(["run", *words]) == 2
    assert "cluster.resources.prune.tasks_per_node" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
