"""The real chain, done in one process (`finished`), by forked workers and by an interpreter for each stage."""

import shutil

import pytest

from spp.cli.execute import server_command, worker_command
from spp.schedule.local import run_local
from spp.store.snapshot import take
from spp.store.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("forked", [True, False], ids=["forked", "fresh"])
def test_however_workers_are_started_the_artifacts_are_the_same(finished, tmp_path, forked):
    root, sweep = finished
    here, store = Store(root), Store(tmp_path / "store")
    plan = here.read_plan(sweep)
    again = list(plan.stages.values())
    if not forked:
        # Interpreters import for seconds: one stage of each kind, beside the others of the finished sweep.
        again = list({stage.kind: stage for stage in again}.values())
        shutil.copytree(root, store.root, symlinks=True)
        for stage in again:
            shutil.rmtree(store.stage_dir(stage.kind, stage.key))
    code = take(store.root).absolute()
    outcome = run_local(
        plan,
        store,
        command=worker_command(store, plan, code),
        server=server_command(store, code) if forked else (),
        max_parallel=2,
        gpu_ids=(),
        observe=lambda event: None,
    )
    assert sorted(outcome.done) == sorted(stage.key for stage in again)
    for stage in again:
        kind, key = stage.kind, stage.key
        assert store.done(kind, key)["artifacts"] == here.done(kind, key)["artifacts"], kind
        assert list(store.logs_dir(kind, key).iterdir()) != []
