import json

import pytest

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.record.record import read_record
from spp.store.store import Store


@pytest.fixture
def store(finished):
    return Store(finished[0])


def test_a_row_is_what_the_stages_have_written(store, finished):
    root, sweep = finished
    record = read_record(store, [sweep])
    plan = store.read_plan(sweep)
    members = [stage for stage in plan.stages.values() if stage.kind == "finetune"]
    assert [row["key"] for row in record.rows] == [stage.key for stage in members]
    for row, stage in zip(record.rows, members, strict=True):
        written = json.loads((root / "stages" / "finetune" / stage.key / "summary.json").read_text())
        assert row["top1"] == written["test"]["top1"]
        assert row["top5"] == written["test"]["top5"] >= row["top1"]
        assert (row["macs"], row["params"]) == (written["macs"], written["params"])
        assert row["folder"] == str(root / "stages" / "finetune" / stage.key)
        assert row["lr"] == stage.config["recipe"]["lr"]
        assert row["num_train_images"] == stage.config["data"]["fingerprint"]["splits"]["train"]
        assert row["epochs_search"] == row["epochs_update"] + row["epochs_prune"] > row["epochs_update"] > 0
    assert record.missing == []


def test_paths_are_there_once_for_all_members(store, finished):
    (path,) = read_record(store, [finished[1]]).paths
    assert (path.method, path.preset, path.seed) == ("spp", "priced", 0)
    assert (path.artifacts / "path.safetensors").is_file()


def test_a_member_of_two_sweeps_counts_once(store, finished):
    sweep = finished[1]
    once = read_record(store, [sweep])
    store.write_plan(f"{sweep}-again", store.read_plan(sweep))
    try:
        twice = read_record(store, [sweep, f"{sweep}-again"])
    finally:
        for file in sorted(store.sweep_dir(f"{sweep}-again").rglob("*"), reverse=True):
            file.unlink()
        store.sweep_dir(f"{sweep}-again").rmdir()
    assert twice == once


def test_what_is_not_finished_is_missing_and_says_why(store, finished, tmp_path):
    plan = store.read_plan(finished[1])
    empty = Store(tmp_path)
    empty.write_plan("s", plan)
    missing = read_record(empty, ["s"]).missing
    assert len(missing) == len([stage for stage in plan.stages.values() if stage.kind == "finetune"])
    assert {member.state for member in missing} == {"not finished"}
    (dense,) = (stage for stage in plan.stages.values() if stage.kind == "dense")
    empty.put_spec(dense)
    empty.fail("dense", dense.key, "ValueError: x")
    assert {member.state for member in read_record(empty, ["s"]).missing} == {"failed"}
    assert missing[0].command.startswith("spp run debug=fast")


def planned(*words):
    return plan_sweep(compose_points(["debug=fast", *words], multirun=True)).plan


def test_a_sweep_that_says_a_default_goes_on_with_one_that_does_not(tmp_path):
    store = Store(tmp_path)
    store.write_plan("plain", planned("method=taylor", "seed=0"))
    store.write_plan("said", planned("method=taylor", "seed=0,1", "method.min_units=1,2"))
    missing = read_record(store, ["plain", "said"]).missing
    variants = {}
    for member in missing:
        variants.setdefault(member.variant, set()).add(member.seed)
    assert variants == {"": {0, 1}, "method.min_units=2": {0, 1}}


def test_what_is_missing_tells_the_search_that_it_shares(tmp_path):
    store = Store(tmp_path)
    store.write_plan("s", planned("method=spp,upop,lasso", "budget.values=[0.5,0.3]"))
    keys = {}
    for member in read_record(store, ["s"]).missing:
        keys.setdefault(member.method, set()).add(member.search_key)
    assert {method: len(found) for method, found in keys.items()} == {"spp": 1, "upop": 2, "lasso": 2}
