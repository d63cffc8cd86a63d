"""The fields in which two stages differ, against stages that were made to differ in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.plan.compare import NOT_SET, differences, flat
from spp.plan.spec import Stage


def chain(lr=0.1, seed=0, tune_lr=0.5, extra=None):
    dense = Stage("dense", {"seed": seed, "model": {"name": "vit"}})
    update = Stage("update", {"seed": seed, "method": {"lr": lr, **(extra or {})}}, {"dense": dense})
    return Stage("finetune", {"seed": seed, "recipe": {"lr": tune_lr}}, {"family": update, "dense": dense})


def specs_of(*stages):
    found = {}

    def add(stage):
        found[stage.kind, stage.key] = stage.to_json()
        for parent in stage.inputs.values():
            add(parent)

    for stage in stages:
        add(stage)
    return lambda kind, key: found.get((kind, key))


def compared(left, right):
    return [
        (d.field, d.left, d.right, d.stages)
        for d in differences(left.to_json(), right.to_json(), specs_of(left, right))
    ]


def test_equal_stages_do_not_differ():
    assert compared(chain(), chain()) == []


def test_a_field_of_the_stage_itself_is_called_as_the_user_sets_it():
    assert compared(chain(tune_lr=0.5), chain(tune_lr=0.25)) == [("finetune.lr", 0.5, 0.25, ("finetune",))]


def test_a_field_of_an_input_is_found_and_one_that_all_share_is_there_once():
    assert compared(chain(lr=0.1), chain(lr=0.2)) == [("method.lr", 0.1, 0.2, ("update",))]
    assert compared(chain(seed=0), chain(seed=1)) == [("seed", 0, 1, ("finetune", "dense", "update"))]


def test_a_field_that_one_lacks_and_an_input_that_nobody_knows():
    assert compared(chain(), chain(extra={"rho": 2})) == [("method.rho", NOT_SET, 2, ("update",))]
    left, right = chain(lr=0.1), chain(lr=0.2)
    (only,) = differences(left.to_json(), right.to_json(), lambda kind, key: None)[1:] or differences(
        left.to_json(), right.to_json(), lambda kind, key: None
    )
    assert (only.field, only.left) == ("inputs.family", f"update {left.inputs['family'].key}")


def test_a_version_is_a_difference():
    left, right = Stage("measure", {}, version=1), Stage("measure", {}, version=2)
    assert compared(left, right) == [("version", 1, 2, ("measure",))]


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 3), max_size=4), st.data())
def test_the_number_of_differences_is_that_of_the_fields_that_were_changed(config, data):
    changed = data.draw(st.sets(st.sampled_from(sorted(config)))) if config else set()
    other = {name: value + 10 if name in changed else value for name, value in config.items()}
    found = compared(Stage("dense", {"method": config}), Stage("dense", {"method": other}))
    assert {field for field, *_ in found} == {f"method.{name}" for name in changed}


@pytest.mark.parametrize(
    ("config", "expected"), [({}, {}), ({"a": {}, "b": {"c": {"d": [1]}}}, {"a": {}, "b.c.d": [1]})]
)
def test_flat(config, expected):
    assert flat(config) == expected
