"""Stages that may fail: the sweep counts as done, the report is made over what is there and says what is not."""

import json
import shutil

import pytest

from spp.cli.main import main
from spp.cli.sweeps import view_sweep
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.events import Outcome
from spp.store.store import Store


@pytest.mark.parametrize(("allowed", "ok"), [((), False), (("finetune",), True), (("measure",), False)])
def test_what_a_failed_stage_blocks_is_excused_with_it(chain, allowed, ok):
    dense, update, first, second = chain.stages
    outcome = Outcome(done=(dense, update, second), cached=(), failed=(first,), blocked={})
    assert outcome.ok_but_for(chain, allowed) is ok
    measure = Stage("measure", {}, {"member": chain.stages[first]})
    longer = Plan.merge([Point("p", (), (measure, chain.stages[second]), {})])
    outcome = Outcome(done=(dense, update, second), cached=(), failed=(first,), blocked={measure.key: first})
    assert outcome.ok_but_for(longer, allowed) is ok


@pytest.mark.parametrize("allowed", [[], ["finetune"]])
def test_a_sweep_with_an_excused_failure_is_done(chain, tmp_path, finish, allowed, capsys):
    store = Store(tmp_path / "store")
    store.write_plan("mine", chain, {"name": "local", "allow_failure": allowed})
    *rest, last = chain.stages.values()
    for stage in rest:
        finish(store, stage)
    store.fail(last.kind, last.key, "ValueError: no")
    view = view_sweep(store, "mine")
    assert (view.ok, view.word) == ((True, "done") if allowed else (False, "failed"))
    assert main(["watch", f"paths.store={store.root}"]) == (0 if allowed else 1)
    capsys.readouterr()
    assert main(["status", f"paths.store={store.root}"]) == 0
    assert ("as cluster.allow_failure lets them" in capsys.readouterr().out) is bool(allowed)


def test_the_report_is_made_over_what_is_there_and_says_what_is_not(finished, tmp_path, capsys):
    root, sweep = finished
    shutil.copytree(root, tmp_path / "store")
    store = Store(tmp_path / "store")
    lost = next(s for s in store.read_plan(sweep).stages.values() if s.kind == "measure" and s.label == "member 0.3")
    shutil.rmtree(store.stage_dir(lost.kind, lost.key))
    store.fail(lost.kind, lost.key, "RuntimeError: out of luck")
    words = ["report", "family", "--format", "md", f"paths.store={store.root}"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "macs 50 %" in said.out
    assert f"spp: not there, failed: 0.3 macs of debug=fast ({sweep}); again with: spp retry {sweep}\n" in said.err
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_members"] == 1
    assert [(one["state"], one["budget_asked"]) for one in told["missing"]] == [("failed", 0.3)]


def test_a_kind_that_there_is_not_is_refused(tmp_path, capsys):
    assert main(["plan", "cluster.allow_failure=[finetun]", f"paths.store={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("spp: cluster.allow_failure: 'finetun' is not allowed; allowed: dense, ")
