import json
import os
import shutil

import pytest

from spp.cli.main import main
from spp.store.atomic import read_json, write_json
from spp.store.store import Store


@pytest.fixture
def broken(finished, tmp_path):
    """A copy of the finished sweep of which one finetune has failed."""
    root, sweep = finished
    shutil.copytree(root, tmp_path / "store")
    store = Store(tmp_path / "store")
    stage = store.read_plan(sweep).points[0].stages[-1].inputs["member"]
    shutil.rmtree(store.stage_dir(stage.kind, stage.key))
    store.put_spec(stage)
    store.fail(stage.kind, stage.key, "Traceback\nRuntimeError: the disk was full")
    return store, sweep, stage


def test_only_what_is_missing_is_done_again_and_comes_out_the_same(broken, finished, capsys):
    store, sweep, stage = broken
    others = [path for path in store.root.glob("stages/*/*/DONE")]
    before = {path: path.stat().st_mtime_ns for path in others}
    assert main(["retry", sweep[:-2], "--json", f"paths.store={store.root}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["sweep"], result["ok"], len(result["stages"]["done"])) == (sweep, True, 9)
    assert before == {path: path.stat().st_mtime_ns for path in others}
    again, first = (s.done(stage.kind, stage.key)["artifacts"] for s in (store, Store(finished[0])))
    assert again == first


def test_a_retry_of_a_sweep_that_is_done_does_nothing(finished, capsys):
    root, sweep = finished
    assert main(["retry", sweep, f"paths.store={root}"]) == 0
    assert "0 done, 9 cached, 0 failed" in capsys.readouterr().out


def test_what_fails_again_is_no_success(broken, capsys):
    store, sweep, stage = broken
    # The spec of the plan is what counts: a recipe that no program can follow.
    plan_file = store.sweep_dir(sweep) / "plan.json"
    content = read_json(plan_file)
    (spec,) = (spec for spec in content["stages"] if spec["key"] == stage.key)
    spec["config"]["recipe"] = {}
    write_json(plan_file, content)
    assert main(["retry", sweep, f"paths.store={store.root}"]) == 1
    assert f"finetune {stage.key} failed" in capsys.readouterr().out


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("place", ["plan.json", ""])
def test_the_plan_of_somebody_else_is_not_carried_out(place, broken, capsys):
    store, sweep, stage = broken
    os.chown(store.sweep_dir(sweep) / place, 4711, 4720)
    assert main(["retry", sweep, f"paths.store={store.root}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("spp: store.trust: 'user' does not fit ")
    assert said.count("\n") == 1
    assert not store.is_done(stage.kind, stage.key)
    os.setgroups([*(before := os.getgroups()), 4720])
    try:
        assert main(["retry", sweep, "store.trust=group", f"paths.store={store.root}"]) == 0
    finally:
        os.setgroups(before)
    assert store.is_done(stage.kind, stage.key)
