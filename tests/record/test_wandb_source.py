import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import wandb

from spp.plan.graph import Plan
from spp.record.record import read_record
from spp.record.wandb_file import find_segments, read_runs
from spp.record.wandb_mirror import open_mirror
from spp.record.wandb_source import read_wandb
from spp.store.store import Store


@pytest.fixture
def store(mirrored):
    """A finished sweep of two methods; every stage has an offline run."""
    wandb.teardown()  # what is finished reaches the disk a moment later
    root, sweep = mirrored
    return Store(root), sweep


def json_of(rows):
    return json.loads(json.dumps(rows))


def test_offline_runs_give_the_record_of_the_store(store):
    store, sweep = store
    expected, found = read_record(store, [sweep]), read_wandb("", store.root)
    assert len(expected.rows) == 4
    assert found.rows == expected.rows
    assert found.paths == expected.paths
    assert found.missing == []


def test_runs_alone_are_enough(store, tmp_path, caplog):
    """Somebody has only the folders of the runs, far from the store."""
    store, sweep = store
    for folder in store.root.glob("stages/*/*/wandb"):
        shutil.copytree(folder, tmp_path / "copied" / folder.parent.name, symlinks=True)
    found = read_wandb(str(tmp_path / "copied"), tmp_path / "no-store")
    for row, expected in zip(found.rows, read_record(store, [sweep]).rows, strict=True):
        assert {**row, "folder": ""} == {**expected, "folder": ""}
    assert found.paths == []
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "the folders of these stages are not here" in warning.getMessage()


def test_a_store_that_was_moved_keeps_its_paths(store, tmp_path):
    store, _ = store
    shutil.copytree(store.root, tmp_path / "moved", symlinks=True)
    (path,) = read_wandb(str(tmp_path / "moved"), tmp_path / "no-store").paths
    assert path.artifacts.is_relative_to(tmp_path / "moved")
    assert (path.artifacts / "path.safetensors").is_file()


def test_a_member_without_a_result_is_missing(store, tmp_path):
    store, sweep = store
    shutil.copytree(store.root, tmp_path / "store", symlinks=True)
    lost = read_record(store, [sweep]).rows[0]
    (file,) = (tmp_path / "store" / "stages" / "measure" / lost["key"]).rglob("*.wandb")
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"headline")])
    found = read_wandb("", tmp_path / "store")
    assert [row["key"] for row in found.rows] == [row["key"] for row in read_record(store, [sweep]).rows[1:]]
    (missing,) = found.missing
    assert (missing.budget_asked, missing.state) == (lost["budget_asked"], "not finished")
    assert missing.command == lost["command"]


def test_members_whose_search_left_no_run(store, tmp_path, caplog):
    store, _ = store
    shutil.copytree(store.root, tmp_path / "store", symlinks=True)
    for folder in (tmp_path / "store" / "stages" / "prune").glob("*/wandb"):
        shutil.rmtree(folder)
    found = read_wandb("", tmp_path / "store")
    assert [row["method"] for row in found.rows] == ["wdpruning", "wdpruning"]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith("2 members are left out")


def test_no_runs(tmp_path):
    with pytest.raises(ValueError, match=r"^--source wandb: .* holds no run of a stage; allowed: .*; run something"):
        read_wandb("", tmp_path)


def test_uploaded_runs_give_the_record_of_the_store(store, tmp_path, wandb_server):
    """The whole way: the real `wandb sync` to a server, and from there by the real `wandb.Api`."""
    store, sweep = store
    shutil.copytree(store.root, tmp_path / "store", symlinks=True)
    folders = map(str, find_segments(tmp_path / "store"))
    subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], cwd=tmp_path, check=True, timeout=120)
    for where in ("spp", "lab/spp"):
        found = read_wandb(where, store.root)
        expected = read_record(store, [sweep])
        assert sorted(json_of(found.rows), key=lambda row: row["key"]) == sorted(
            json_of(expected.rows), key=lambda row: row["key"]
        )
        assert found.paths == expected.paths
    with pytest.raises(ValueError, match=r"^--source wandb: 'lab/nothing' cannot be read .*; check its name$"):
        read_wandb("lab/nothing", store.root)


def test_a_project_without_a_login_or_a_network(no_account, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^--source wandb: 'lab/spp' is no folder, and there is no W&B login; say"):
        read_wandb("lab/spp", tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    with pytest.raises(ValueError, match=r"the W&B server http://127\.0\.0\.1:9 does not answer \(.*refused"):
        read_wandb("lab/spp", tmp_path)


def test_a_run_belongs_to_the_first_point_that_asks_for_it(store):
    store, sweep = store
    plan = store.read_plan(sweep)
    runs = {run.id: run for run in read_runs(find_segments(store.root))}
    assert runs.keys() == plan.stages.keys()
    assert os.environ["WANDB_MODE"] == "offline"
    for key, stage in plan.stages.items():
        point = runs[key].config["point"]
        assert point["name"] == plan.points_of(key)[0]
        assert (point["sweep"], plan.points[point["index"]].name) == (sweep, point["name"])
        assert point["meta"]["method"] in ("spp", "wdpruning")
        assert "config" not in point["meta"]
        assert runs[key].config["kind"] == stage.kind


def test_runs_of_untrained_members_and_of_searches_for_one_budget(tmp_path, make_point, finish, no_account):
    points = [
        make_point("update", is_trained=False, budgets=[0.5]),
        make_point("search", is_walked=False, budgets=[0.5]),
        make_point("search", is_walked=False, is_trained=False, budgets=[0.5]),
    ]
    store, plan = Store(tmp_path), Plan.merge(points)
    finish(store, plan)
    store.write_plan("s", plan)
    for key, stage in plan.stages.items():
        name = plan.points_of(key)[0]
        (index,) = [number for number, point in enumerate(plan.points) if point.name == name]
        point = plan.points[index]
        told = {"name": name, "sweep": "s", "index": index, "overrides": list(point.overrides), "meta": point.meta}
        mirror = open_mirror(
            store.stage_dir(stage.kind, key),
            mode="offline",
            project="spp",
            entity=None,
            group=name,
            job_type=stage.kind,
            run_id=key,
            name=stage.kind,
            tags=[],
            config={**stage.to_json(), "point": told, "provenance": {"git": {"commit": "c0ffee"}}},
        )
        mirror.set_result(store.summary(stage.kind, key))
        mirror.finish()
    wandb.teardown()
    expected, found = read_record(store, ["s"]), read_wandb("", tmp_path)
    assert [row["member_kind"] for row in expected.rows] == ["prune", "finetune", "search"]
    assert json_of(found.rows) == json_of(expected.rows)
