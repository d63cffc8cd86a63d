"""What `spp run` leaves out, and says so, instead of refusing a whole sweep."""

import io
import re

import pytest
from rich.console import Console

from spp.cli.launch import leave_out_unreachable
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.record.record import read_record
from spp.store.store import Store

BUDGETS = "budget=macs:[0.7,0.3]"
FLOORS = "method.min_mlp_share=0.5"


def within_reach(tmp_path, *words):
    said = io.StringIO()
    planned = plan_sweep(compose_points(["debug=fast", BUDGETS, *words], multirun=True))
    plan = leave_out_unreachable(planned, Store(tmp_path), Console(file=said, soft_wrap=True))
    served = {p.meta["method"]: [s.config["budget"]["value"] for s in p.stages] for p in plan.points}
    return served, said.getvalue(), plan


def test_a_budget_out_of_reach_for_one_method_of_several_is_left_out_for_that_one(tmp_path):
    served, said, _ = within_reach(tmp_path, "method=dsp,random")
    assert served == {"dsp": [0.7], "random": [0.7, 0.3]}
    assert said.startswith("left out: method=dsp: macs: 0.3 cannot be reached; allowed: ")
    assert said.count("\n") == 1


def test_a_method_that_can_serve_nothing_is_left_out_whole(tmp_path):
    served, said, _ = within_reach(tmp_path, "method=dsp,random", "budget.values=[0.3]")
    assert served == {"random": [0.3]}
    assert "method=dsp" in said


def test_the_record_knows_what_was_left_out_wherever_else_the_method_was_run(tmp_path):
    _, _, plan = within_reach(tmp_path, "method=dsp,random", "seed=0,1")
    alone = plan_sweep(compose_points(["debug=fast", "method=dsp", "budget=macs:[0.7]", "seed=0"], multirun=True)).plan
    store = Store(tmp_path)
    store.write_plan("alone", alone)
    store.write_plan("together", plan)
    record = read_record(store, ["alone", "together"])
    found = [(one.method, one.seed, one.budget_kind, one.budget_asked) for one in record.out_of_reach]
    assert found == [("dsp", 0, "macs", 0.3), ("dsp", 1, "macs", 0.3)]
    assert {one.variant for one in record.out_of_reach} == {one.variant for one in record.missing} == {""}


def test_alone_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^method=dsp: macs: 0\.3 cannot be reached"):
        within_reach(tmp_path, "method=dsp")


def test_a_method_that_ranks_searches_for_the_budgets_that_it_can_have(tmp_path):
    served, said, plan = within_reach(tmp_path, "method=snapvit,random", "budget.values=[0.7,0.1]")
    assert served == {"snapvit": [0.7], "random": [0.7, 0.1]}
    assert said.startswith("left out: method=snapvit: budget.values: 0.1 cannot be reached with method.min_head_share=")
    families = {stage.config["method"]["name"]: stage for stage in plan.stages.values() if stage.kind == "prune"}
    assert families["snapvit"].config["budget"]["values"] == [0.7]
    assert families["random"].config["budget"]["values"] == [0.7, 0.1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=snapvit", FLOORS], r"method=snapvit: budget\.values: 0\.3 cannot be reached with method\.min_head"),
        (["method=spp", "budget.multiple_of=256"], r"method=spp: budget\.values: 0\.3 cannot be reached with widths"),
    ],
)
def test_alone_it_is_refused_by_plan_and_by_run(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["debug=fast", BUDGETS, "data.num_train=500", *words, f"paths.store={tmp_path / 'store'}"]
    lines = []
    for command in ("plan", "run"):
        assert main([command, *words]) == 2
        lines += capsys.readouterr().err.splitlines()
    assert lines[0] == lines[1]
    assert re.match(rf"spp: {said}", lines[0])
    assert not (tmp_path / "store").exists()
