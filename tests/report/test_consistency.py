import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spp
from spp.report.consistency import (
    chance_overlap,
    kendall_tau,
    pairs_of_seeds,
    share_that_stays,
    support_at,
    support_overlap,
    unit_costs,
    unit_order,
)
from spp.report.path_arrays import read_path

TIMES = st.sampled_from([0.5, 1.0, 2.0, 3.0, math.inf])


def brute_force_tau(a, b):
    """tau-b from its definition: signs over all pairs."""
    signs = [
        (np.sign(a[i] - a[j]) if a[i] != a[j] else 0, np.sign(b[i] - b[j]) if b[i] != b[j] else 0)
        for i, j in itertools.combinations(range(len(a)), 2)
    ]
    untied = [sum(sign[axis] != 0 for sign in signs) for axis in (0, 1)]
    return sum(x * y for x, y in signs) / math.sqrt(untied[0] * untied[1]) if all(untied) else math.nan


@given(st.lists(st.tuples(TIMES, TIMES), min_size=2, max_size=90))
def test_tau_is_that_of_all_pairs(times):
    a, b = np.array(times).T
    assert kendall_tau(a, b) == pytest.approx(brute_force_tau(a, b), nan_ok=True)


def test_tau_of_long_lists_without_ties():
    random = np.random.default_rng(0)
    a = random.random(500)
    b = a + 0.3 * random.random(500)
    assert kendall_tau(a, b) == pytest.approx(brute_force_tau(a, b))
    assert kendall_tau(a, a) == pytest.approx(1)
    assert kendall_tau(a, -a) == pytest.approx(-1)


def test_tau_wants_as_many_units():
    with pytest.raises(ValueError, match="allowed: 3"):
        kendall_tau(np.arange(3), np.arange(4))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_overlap_is_that_of_sets(members):
    a, b = (np.array([one[axis] for one in members]) for axis in (0, 1))
    left, right = ({i for i, one in enumerate(members) if one[axis]} for axis in (0, 1))
    expected = len(left & right) / len(left | right) if left | right else math.nan
    assert support_overlap(a, b) == pytest.approx(expected, nan_ok=True)


def test_chance_is_what_random_supports_have():
    random = np.random.default_rng(0)
    a, b = np.arange(1000) < 300, np.arange(1000) < 500
    drawn = [support_overlap(random.permutation(a), random.permutation(b)) for _ in range(300)]
    assert chance_overlap(a, b) == pytest.approx(np.mean(drawn), rel=0.01)


def test_a_unit_that_leaves_or_comes_back_does_not_stay():
    gamma = np.array([[0, 0, 0, 0], [1, 0, -2, 0], [1, 3, 0, 0], [2, 3, 1, 0]])
    assert share_that_stays(gamma) == pytest.approx(2 / 3)
    assert math.isnan(share_that_stays(np.zeros((3, 2))))


def test_the_order_of_a_path_is_the_librarys(compared):
    presets = set()
    for source in compared.paths:
        path, expected = read_path(source.artifacts), spp.SolutionPath.load(source.artifacts)
        first = np.cumsum([0, *(pair.size for pair in expected.pairs)])
        rows = expected.order(min_units=0).numpy()
        assert np.array_equal(unit_order(path), first[rows[:, 0]] + rows[:, 1])
        presets.add(source.preset)
    assert presets == {"priced", "released"}


def test_the_order_of_a_refined_path_is_the_librarys(compared, tmp_path):
    path = spp.SolutionPath.load(compared.paths[0].artifacts)
    best = path.unit_numbers()[:40].flip(0)
    refined = path.refined(best)
    refined.save(tmp_path)
    found = unit_order(read_path(tmp_path))
    assert found.tolist() == refined.unit_numbers().tolist() != path.unit_numbers().tolist()


@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_a_support_has_what_its_budget_pays_for_and_no_more(compared, share):
    path = read_path(compared.paths[0].artifacts)
    costs, inside = unit_costs(path, "macs"), support_at(path, share)
    assert costs[inside].sum() <= share * costs.sum() * (1 + 1e-9)
    outside = unit_order(path)[~inside[unit_order(path)]]
    assert len(outside) == 0 or costs[inside].sum() + costs[outside[0]] > share * costs.sum()


def test_pairs_of_seeds_come_once():
    assert pairs_of_seeds([2, 0, 1, 0]) == [(0, 1), (0, 2), (1, 2)]
