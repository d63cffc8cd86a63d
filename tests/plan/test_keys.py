import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.plan.keys import canonical, canonical_json, stage_key

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NAMES = st.text(max_size=3)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=2))
CONFIGS = st.dictionaries(NAMES, VALUES, max_size=4)
# Few names and values, so that two of them are often equal.
FEW_SCALARS = st.sampled_from([None, True, 1, 1.0, 1.5, "1"])
FEW_CONFIGS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    FEW_SCALARS | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), FEW_SCALARS, max_size=2),
)


def shuffled(value, seed):
    """The same value with every dict in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, seed)) for key, item in value.items()]
        random.Random(seed).shuffle(items)
        return dict(items)
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


def as_floats(value):
    """The same value with every int that a float can hold as a float, and tuples for lists."""
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(as_floats(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


@settings(max_examples=50)
@given(CONFIGS, st.integers())
def test_dict_order_and_integral_floats_do_not_matter(config, seed):
    assert canonical_json(shuffled(config, seed)) == canonical_json(config)
    assert canonical_json(as_floats(config)) == canonical_json(config)


@settings(max_examples=50)
@given(CONFIGS)
def test_canonical_is_a_json_value_equal_to_the_original_and_its_own_canonical(config):
    plain = canonical(config)
    assert plain == config
    assert canonical(plain) == plain
    assert json.loads(canonical_json(config)) == plain


@given(FEW_CONFIGS, FEW_CONFIGS)
def test_different_settings_have_different_keys(one, other):
    # Python holds True for 1, which JSON and a config do not, so compare what a reader would see.
    same = json.dumps(canonical(one), sort_keys=True) == json.dumps(canonical(other), sort_keys=True)
    assert (stage_key("update", 1, canonical(one), {}) == stage_key("update", 1, canonical(other), {})) == same


def test_canonical_does_not_share_with_its_argument():
    config = {"a": [1, {"b": 2}]}
    plain = canonical(config)
    config["a"][1]["b"] = 3
    assert plain == {"a": [1, {"b": 2}]}


def test_bool_and_int_and_str_are_three_things():
    assert len({canonical_json({"a": value}) for value in (True, 1, "1", "true")}) == 4
    assert canonical_json({"a": -0.0}) == canonical_json({"a": 0})


def test_key_is_the_sha256_of_a_line_that_can_be_written_by_hand():
    line = '{"config":{"epochs":300,"lr":0.0005},"inputs":{"dense":"0123"},"kind":"update","version":2}'
    expected = hashlib.sha256(line.encode()).hexdigest()[:20]
    assert stage_key("update", 2, canonical({"lr": 5e-4, "epochs": 300.0}), {"dense": "0123"}) == expected


def test_kind_version_and_roles_are_part_of_the_key():
    keys = {
        stage_key("update", 1, {}, {"dense": "a"}),
        stage_key("prune", 1, {}, {"dense": "a"}),
        stage_key("update", 2, {}, {"dense": "a"}),
        stage_key("update", 1, {}, {"teacher": "a"}),
        stage_key("update", 1, {}, {"dense": "b"}),
    }
    assert len(keys) == 5


def test_key_is_the_same_in_processes_with_other_hash_seeds():
    config = {"z": {"y": [1.5, {"x": "\u00e4"}], "w": None}, "a": 3, "b": {"c": True}}
    code = (
        "import json, sys; from spp.plan.keys import stage_key;"
        "print(stage_key('update', 1, json.loads(sys.argv[1]), {'r': 'k', 'a': 'b'}))"
    )
    keys = {stage_key("update", 1, config, {"a": "b", "r": "k"})}
    for hash_seed in ("0", "1", "4711"):
        run = subprocess.run(
            [sys.executable, "-c", code, json.dumps(config)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        keys.add(run.stdout.strip())
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": {"lr": float("nan")}}, r"^config\.a\.lr: nan is not allowed"),
        ({"a": [0, float("-inf")]}, r"^config\.a\[1\]: -inf is not allowed"),
        ({"path": Path("x")}, r"^config\.path: a PosixPath is not allowed"),
        ({"a": {3: 1}}, r"^config\.a: the key 3 is not allowed"),
        ({"s": {1, 2}}, r"^config\.s: a set is not allowed"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        canonical(config)
    assert "\n" not in str(caught.value)
