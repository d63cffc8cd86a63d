"""What is damaged does not count as done, and what is somebody else's does not become a path."""

import json
import os
import shutil

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.atomic import read_json
from spp.store.marker import ARTIFACTS, DONE, verified


@pytest.fixture
def done(store, stage):
    """Folder of a finished stage with one artifact of five bytes."""
    work = store.begin(stage.kind, stage.key)
    (work / "weights.bin").write_text("abcde")
    store.finish(stage.kind, stage.key, {"accuracy": 0.5})
    assert store.is_done(stage.kind, stage.key)
    return store.stage_dir(stage.kind, stage.key)


def cut(folder):
    (folder / ARTIFACTS / "weights.bin").write_text("abc")


def lose(folder):
    shutil.rmtree(folder / ARTIFACTS)


def empty(folder):
    (folder / DONE).write_text("")


def unmark(folder):
    (folder / DONE).write_text("{}")


def mark_elsewhere(folder):
    marker = json.loads((folder / DONE).read_text())
    marker["artifacts"] = {"../../../../outside": {"size": 0, "sha256": "0" * 64}}
    (folder / DONE).write_text(json.dumps(marker))


@pytest.mark.parametrize("harm", [cut, lose, empty, unmark, mark_elsewhere])
def test_a_damaged_stage_is_not_done_and_is_made_again(store, stage, done, harm):
    harm(done)
    assert not store.is_done(stage.kind, stage.key)
    assert store.damage(stage.kind, stage.key)
    work = store.begin(stage.kind, stage.key)
    (work / "weights.bin").write_text("abcde")
    store.finish(stage.kind, stage.key, {"accuracy": 0.5})
    assert store.verify(stage.kind, stage.key) == []
    assert [name for name in os.listdir(done) if name.startswith("damaged-")]


def test_an_artifact_with_a_flipped_bit_is_not_opened(store, stage, done):
    file = done / ARTIFACTS / "weights.bin"
    assert verified(file) == file
    file.write_text("abcdd")
    assert store.is_done(stage.kind, stage.key)
    with pytest.raises(ValueError, match=rf"^update {stage.key}: artifact weights.bin is damaged; .*--repair"):
        verified(file)


def test_a_file_outside_of_a_store_is_opened_as_it_is(tmp_path):
    (tmp_path / "member.safetensors").touch()
    assert verified(tmp_path / "member.safetensors").exists()


def test_the_copy_of_a_summary_stands_in_for_a_damaged_one(store, stage, done):
    (done / "summary.json").write_text('{"accuracy": 0.9}')
    assert store.summary(stage.kind, stage.key) == {"accuracy": 0.5}
    (done / ARTIFACTS / ".record.json").unlink()
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        store.summary(stage.kind, stage.key)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("../x", "0" * 20), ("update", "../../x"), ("update", ""), ("", "0" * 20), ("update", "0" * 19 + "G"), (None, 3)],
)
def test_what_is_no_address_becomes_no_path(store, kind, key):
    with pytest.raises(ValueError, match=r"^(kind|key): .* is not allowed: "):
        store.stage_dir(kind, key)


def test_a_spec_that_is_not_its_key_is_refused(store, stage):
    path = store.stage_dir(stage.kind, stage.key) / "spec.json"
    spec = read_json(path)
    for changed in (
        {"config": {"lr": 0.2}},
        {"version": 2},
        {"kind": "dense"},
        {"key": "0" * 20},
        {"inputs": {"a": 1}},
    ):
        path.write_text(json.dumps({**spec, **changed}))
        with pytest.raises(ValueError, match=rf"^spec.json of update {stage.key}: "):
            store.spec(stage.kind, stage.key)
    path.write_text(json.dumps({**spec, "label": "another", "runtime": {"num_workers": 3}}))
    assert store.spec(stage.kind, stage.key)["label"] == "another"


@pytest.fixture
def sweep(store, stage):
    """Folder of a sweep that was written down."""
    store.write_plan("sweep", Plan.merge([Point("p", ("lr=0.1",), (Stage("prune", {}, {"path": stage}),))]))
    return store.sweep_dir("sweep")


@pytest.mark.parametrize("name", ["plan.json", "points.json"])
@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"stages": [{}], "points": [{}]}', '{"stages": 3, "points": null}', "{"]
)
def test_a_damaged_plan_is_refused_in_one_line(store, sweep, name, text):
    (sweep / name).write_text(text)
    with pytest.raises(ValueError, match=r"(is damaged|it is not a plan).*; allowed: .*same spp run again"):
        store.read_plan("sweep")


@pytest.mark.parametrize("name", ["plan.json", "points.json"])
def test_every_flipped_bit_of_a_plan_is_noticed_or_changes_nothing(store, sweep, name):
    """Bit by bit: what is read is what was written, or refused."""
    content = (sweep / name).read_bytes()
    written = store.read_plan("sweep")
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            (sweep / name).write_bytes(flipped)
            try:
                read = store.read_plan("sweep")
            except ValueError:
                continue
            assert (read.to_json(), read.points_to_json()) == (written.to_json(), written.points_to_json())


def test_a_plan_from_before_there_were_digests_is_read(store, sweep):
    written = store.read_plan("sweep").to_json()
    for name in ("plan.json", "points.json"):
        (sweep / name).write_text(json.dumps(read_json(sweep / name)))
    assert store.read_plan("sweep").to_json() == written


@pytest.mark.parametrize(("field", "value"), [("kind", "../../../evil"), ("key", "../../evil"), ("label", 3)])
def test_a_strangers_plan_makes_no_paths(store, sweep, field, value):
    plan = read_json(sweep / "plan.json")
    plan["stages"][0][field] = value
    (sweep / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match="it is not a plan"):
        store.read_plan("sweep")


def test_a_strangers_batch_makes_no_paths(store):
    for name in ("../x", "a/b", "", ".x"):
        with pytest.raises(ValueError, match=r"^batch: "):
            store.read_batch("sweep", name)


def test_damaged_notes_count_as_none(store, stage):
    folder = store.stage_dir(stage.kind, stage.key)
    for text in ("", "[]", "{}", '{"done": "x"}', "\x00"):
        for name in ("progress.json", "submitted.json", "FAILED"):
            (folder / name).write_text(text)
        (folder.parent / "recent.jsonl").write_text(f'{text}\n{{"key": "a", "seconds": "x", "gpu_seconds": 2}}\n')
        assert store.read_progress(stage.kind, stage.key) is None
        assert store.submitted(stage.kind, stage.key) is None
        assert store.failure(stage.kind, stage.key)["traceback"] is not None
        assert {"key": "a", "gpu_seconds": 2} in store.recent_costs(stage.kind, 5)
