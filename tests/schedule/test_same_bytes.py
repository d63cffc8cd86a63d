"""The real chain, done in one process (`finished`), by forked workers and by an interpreter for each stage."""

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
    assert sorted(outcome.done) == sorted(plan.stages)
    for key, stage in plan.stages.items():
        assert store.done(stage.kind, key)["artifacts"] == here.done(stage.kind, key)["artifacts"], stage.kind
        assert list(store.logs_dir(stage.kind, key).iterdir()) != []
