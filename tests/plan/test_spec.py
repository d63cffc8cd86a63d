import dataclasses

import pytest

from spp.plan.keys import stage_key
from spp.plan.spec import Stage, StageRef


def test_key_follows_the_inputs_and_ignores_label_runtime_and_resources():
    dense = Stage("dense", {"depth": 12})
    update = Stage("update", {"lr": 0.1}, {"dense": dense}, version=3)
    assert update.key == stage_key("update", 3, {"lr": 0.1}, {"dense": dense.key})
    elsewhere = Stage(
        "update", {"lr": 0.1}, {"dense": dense}, 3, label="x", runtime={"workers": 4}, resources={"gpus": 1}
    )
    assert elsewhere.key == update.key
    assert elsewhere == update
    assert len({elsewhere, update}) == 1
    assert update.ref == StageRef("update", update.key)
    assert Stage("update", {"lr": 0.1}, {"dense": Stage("dense", {"depth": 6})}, version=3) != update


def test_stage_does_not_follow_later_changes_of_its_config():
    config = {"opt": {"lr": 0.1}}
    stage = Stage("update", config)
    config["opt"]["lr"] = 0.2
    assert stage.config == {"opt": {"lr": 0.1}}
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.kind = "prune"


def test_worker_reads_the_canonical_config_so_that_the_key_determines_it():
    assert repr(Stage("update", {"epochs": 3.0}).to_json()["config"]) == "{'epochs': 3}"


def test_json_round_trip_keeps_everything_and_the_written_key():
    dense = Stage("dense", {"depth": 12})
    stage = Stage("update", {"lr": 0.1}, {"dense": dense}, 3, "an update", {"workers": 4}, {"gpus": 1})
    spec = stage.to_json()
    assert spec["inputs"] == {"dense": {"kind": "dense", "key": dense.key}}
    assert Stage.from_json(spec, {"dense": dense}).to_json() == spec
    assert Stage.from_json({**spec, "key": "made differently"}, {"dense": dense}).key == "made differently"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage("Up/date", {}), r"^kind: 'Up/date' is not allowed"),
        (
            lambda: Stage("update", {}, {"../x": Stage("dense", {})}),
            r"^update\.inputs: '../x' is not allowed",
        ),
        (lambda: Stage("update", {"f": object()}), r"^update\.config\.f: a object is not allowed"),
        (lambda: Stage("update", {}, runtime={"root": {1}}), r"^update\.runtime\.root: a set is not allowed"),
    ],
)
def test_bad_fields_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
