import json

import pytest

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.plan.graph import Plan
from spp.record.lineage import measures_member
from spp.record.record import read_record
from spp.store.store import Store


def members_of(plan):
    return [stage for stage in plan.stages.values() if measures_member(stage.kind, stage.config)]


@pytest.fixture
def store(finished):
    return Store(finished[0])


def test_a_row_is_what_the_stages_have_written(store, finished):
    root, sweep = finished
    record = read_record(store, [sweep])
    members = members_of(store.read_plan(sweep))
    assert [row["key"] for row in record.rows] == [stage.key for stage in members]
    for row, stage in zip(record.rows, members, strict=True):
        written = json.loads((root / "stages" / "measure" / stage.key / "summary.json").read_text())
        member = stage.inputs["member"]
        assert row["metrics"] == written["metrics"]["test"]
        assert row["metrics_before"] == written["metrics"]["before"]
        assert row["metrics"]["top5"]["value"] >= row["metrics"]["top1"]["value"]
        assert (row["task"], row["headline"]) == ("classification", "top1")
        assert (row["macs"], row["params"]) == (written["macs"], written["params"])
        assert (row["member_kind"], row["member_key"]) == ("finetune", member.key)
        assert row["folder"] == str(root / "stages" / "measure" / stage.key)
        assert row["lr"] == member.config["recipe"]["lr"]
        assert row["num_train"] == stage.config["data"]["fingerprint"]["splits"]["train"]
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


@pytest.fixture
def made(tmp_path, finish):
    """Makes a finished sweep of hand-made points and returns its record."""

    def make(*points):
        store, plan = Store(tmp_path), Plan.merge(points)
        finish(store, plan)
        store.write_plan("s", plan)
        return read_record(store, ["s"])

    return make


def test_a_trained_member_of_a_path(made, make_point):
    point = make_point("update")
    record = made(point)
    reference, half, _ = point.stages
    row = record.rows[0]
    assert len(record.rows) == 2  # the dense network's own measurement is no member
    assert (row["key"], row["member_key"]) == (half.key, half.inputs["member"].key)
    assert row["dense_metrics"]["top1"]["value"] == 97.0
    assert [row[name]["top1"]["value"] for name in ("metrics", "metrics_before", "val_metrics")] == [90.5, 60.0, 89.0]
    assert (row["macs"], row["dense_macs"], row["dense_params"]) == (50, 100, 40)
    assert (row["epochs_update"], row["epochs_prune"], row["epochs_search"], row["epochs_finetune"]) == (10, 4, 14, 6)
    assert (row["search_seconds"], row["walk_seconds"], row["finetune_seconds"]) == (35.0, 5.0, 9.0)
    assert (row["batch_size"], row["lr"], row["num_train"], row["data_config"]["img_size"]) == (64, 0.01, 1350, 32)
    assert row["config"] == half.inputs["member"].config
    search = half.inputs["member"].inputs["family"].inputs["path"]
    assert row["method_config"] == {**search.config["method"], "score": "entry"}  # of the choice along its path, too
    assert row["path_key"] == row["search_key"] == record.paths[0].key
    assert reference.key not in {found["key"] for found in record.rows}


def test_a_member_that_was_only_cut_out(made, make_point):
    row = made(make_point("update", is_trained=False)).rows[0]
    assert (row["member_kind"], row["member_key"]) == ("prune", row["family_key"])
    assert row["metrics_before"] == row["metrics"]
    assert (row["epochs_finetune"], row["finetune_seconds"], row["finetune_gpu_seconds"]) == (0, 0.0, 0.0)
    assert (row["lr"], row["batch_size"]) == (None, None)
    assert (row["epochs_search"], row["search_seconds"]) == (14, 35.0)


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_search_that_hands_out_its_member(made, make_point, is_trained):
    record = made(make_point("search", is_walked=False, is_trained=is_trained))
    half, third = record.rows
    assert half["search_key"] == half["family_key"] != third["search_key"]
    assert half["member_kind"] == ("finetune" if is_trained else "search")
    assert (half["epochs_update"], half["epochs_prune"], half["epochs_search"]) == (12, 0, 12)
    assert (half["search_seconds"], half["walk_seconds"]) == (20.0, 0.0)
    assert half["path_key"] is None
    assert record.paths == []


def test_tasks_are_told_by_name_or_by_the_factory_of_their_own(made, make_point):
    record = made(
        make_point(), make_point(task={"factory": "mine:make_task", "kwargs": {}}, words=["task.factory=mine"])
    )
    assert [row["task"] for row in record.rows] == ["classification"] * 2 + ["mine:make_task"] * 2
    assert [path.task for path in record.paths] == ["classification", "mine:make_task"]
    # The task is a column of its own, so no variant is needed to tell its members apart.
    assert {row["variant"] for row in record.rows if row["task"] == "classification"} == {""}


def test_what_is_not_finished_is_missing_and_says_why(tmp_path, make_point, finish):
    plan = Plan.merge([make_point(words=["debug=fast"])])
    store = Store(tmp_path)
    store.write_plan("s", plan)
    missing = read_record(store, ["s"]).missing
    assert [member.budget_asked for member in missing] == [0.5, 0.3]
    assert {member.state for member in missing} == {"not finished"}
    assert missing[0].command.startswith("spp run debug=fast")
    (dense,) = (stage for stage in plan.stages.values() if stage.kind == "dense")
    store.put_spec(dense)
    store.fail("dense", dense.key, "ValueError: x")
    assert {member.state for member in read_record(store, ["s"]).missing} == {"failed"}
    finish(store, plan)
    assert read_record(store, ["s"]).missing == []


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
