"""The order of the units against sorting written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spp.dynamics.order import pair_indices, rank_within, unit_order
from spp.structure.pair import Pair


def make_pairs(kinds_and_sizes):
    return [Pair(f"{i}.{kind}", kind, size, 1, 1.0, 1, False, f"{i}") for i, (kind, size) in enumerate(kinds_and_sizes)]


kinds_and_sizes = st.lists(st.tuples(st.sampled_from(["qk", "vo", "mlp"]), st.integers(1, 6)), min_size=1, max_size=5)


@st.composite
def problems(draw):
    pairs = make_pairs(draw(kinds_and_sizes))
    size = sum(pair.size for pair in pairs)
    few = st.lists(st.integers(0, 4), min_size=size, max_size=size)
    return pairs, draw(few), draw(few), draw(st.integers(0, 3))


def plain_order(pairs, key, tie, min_units):
    """Sort; then move the best units of every pair to the front."""
    pair_of = [index for index, pair in enumerate(pairs) for _ in range(pair.size)]
    ranked = sorted(range(len(key)), key=lambda unit: (key[unit], -tie[unit], unit))
    first, rest, seen = [], [], [0] * len(pairs)
    for unit in ranked:
        (first if seen[pair_of[unit]] < min_units else rest).append(unit)
        seen[pair_of[unit]] += 1
    return first, rest


@given(problems())
def test_global_order_is_a_sort_with_the_floor_in_front(problem):
    pairs, key, tie, min_units = problem
    found = unit_order(pairs, torch.tensor(key).double(), torch.tensor(tie).double(), min_units=min_units)
    first, rest = plain_order(pairs, key, tie, min_units)
    assert found.tolist() == first + rest


@given(problems())
def test_family_order_keeps_equal_fractions_and_each_familys_own_order(problem):
    pairs, key, tie, min_units = problem
    found = unit_order(
        pairs, torch.tensor(key).double(), torch.tensor(tie).double(), scope="family", min_units=min_units
    ).tolist()
    first, rest = plain_order(pairs, key, tie, min_units)
    is_mlp = [pair.kind == "mlp" for pair in pairs for _ in range(pair.size)]
    assert sorted(found[: len(first)]) == sorted(first)
    for family in (True, False):
        assert [u for u in found if is_mlp[u] == family] == [u for u in first + rest if is_mlp[u] == family]
    sizes = {family: is_mlp.count(family) for family in (True, False)}
    floor = {family: sum(is_mlp[u] == family for u in first) / max(sizes[family], 1) for family in sizes}
    if min(sizes.values()) == 0:
        return
    for length in range(len(first), len(found) + 1):
        share = {f: sum(is_mlp[u] == f for u in found[:length]) / sizes[f] for f in sizes}
        if min(share[True], share[False]) >= max(floor.values()):
            assert abs(share[True] - share[False]) <= max(1 / size for size in sizes.values()) + 1e-12


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_rank_within_counts_earlier_equals(groups):
    expected = [groups[:index].count(group) for index, group in enumerate(groups)]
    assert rank_within(torch.tensor(groups)).tolist() == expected


def test_pair_indices():
    assert pair_indices(make_pairs([("qk", 2), ("mlp", 3)])).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"scope": "layer"}, "scope: 'layer' is not known; allowed: global, family; use global"),
        ({"min_units": -1}, "min_units: -1 is not allowed: must be a whole number >= 0; use 1"),
        ({"min_units": 1.5}, "min_units: 1.5 is not allowed: must be a whole number >= 0; use 1"),
        ({"min_units": True}, "min_units: True is not allowed: must be a whole number >= 0; use 1"),
    ],
)
def test_mistakes_are_named(choice, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        unit_order(make_pairs([("qk", 2)]), torch.zeros(2), torch.zeros(2), **choice)
