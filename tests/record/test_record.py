import json

import pytest

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
