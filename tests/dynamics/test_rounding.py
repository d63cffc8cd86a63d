"""Widths that are multiples of a number, against a search over all prefixes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spp.dynamics.budget import KINDS, Budget, OutOfReachError, budget_range, cost_of
from spp.dynamics.order import unit_order
from spp.dynamics.ranking import Ranking
from spp.dynamics.rounding import rounded_masks
from spp.structure.pair import Pair


@st.composite
def problems(draw):
    """Two attentions, of shared units and of heads that choose alone, and an MLP; an order of all units."""
    width, hidden = draw(st.integers(3, 6)), draw(st.integers(3, 9))
    prices = st.integers(1, 50)
    pairs = [
        Pair(f"{name}.{kind}", kind, width * (2 if alone else 1), draw(prices), float(draw(prices)), 2, alone, name)
        for name, alone in (("a", False), ("b", True))
        for kind in ("qk", "vo")
    ]
    pairs.append(Pair("m", "mlp", hidden, draw(prices), float(draw(prices)), 1, False, "m"))
    num_units = sum(pair.size for pair in pairs)
    key = torch.tensor(draw(st.permutations(range(num_units)))).double()
    return pairs, unit_order(pairs, key, -key), draw(st.sampled_from([2, 3, 4]))


def by_hand(pairs, order, num_kept, multiple_of):
    """The first units of an order, and of each head what it takes to fill up its width."""
    units = [(pair, number) for pair in pairs for number in range(pair.size)]

    def head_of(pair, number):
        return (pair.name, number // (pair.size // pair.num_heads) if pair.per_head else 0)

    widths: dict[tuple[str, int], int] = {}
    for index in order[:num_kept].tolist():
        widths[head_of(*units[index])] = widths.get(head_of(*units[index]), 0) + 1
    masks = {pair.name: torch.zeros(pair.size, dtype=torch.bool) for pair in pairs}
    taken: dict[tuple[str, int], int] = {}
    for index in order.tolist():
        pair, number = units[index]
        head = head_of(pair, number)
        if taken.get(head, 0) < math.ceil(widths.get(head, 0) / multiple_of) * multiple_of:
            masks[pair.name][number] = True
            taken[head] = taken.get(head, 0) + 1
    return masks


def size_of(pairs, masks, kind):
    return sum(int(m.sum()) for m in masks.values()) if kind == "units" else getattr(cost_of(pairs, masks), kind)


@given(problems(), st.sampled_from(KINDS), st.floats(0.3, 1.0))
def test_it_is_the_largest_rounded_prefix_that_the_budget_pays_for(problem, kind, share):
    pairs, order, multiple_of = problem
    everything = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in pairs}
    budget = Budget(kind, share)
    size = share * size_of(pairs, everything, kind)
    possible = [by_hand(pairs, order, n, multiple_of) for n in range(len(pairs), len(order) + 1)]
    fitting = [masks for masks in possible if size_of(pairs, masks, kind) <= size + 1e-6]
    try:
        masks = rounded_masks(pairs, order, budget, multiple_of)
    except OutOfReachError:
        assert not fitting or size < budget_range(pairs, kind)[0]
        return
    expected = fitting[-1]
    assert all(torch.equal(masks[name], expected[name]) for name in expected)


@given(problems(), st.floats(0.6, 0.8), st.floats(0.8, 1.0))
def test_masks_of_a_smaller_budget_are_subsets(problem, small, large):
    pairs, order, multiple_of = problem
    try:
        inner, outer = (rounded_masks(pairs, order, Budget("units", share), multiple_of) for share in (small, large))
    except OutOfReachError:
        return
    assert all((inner[name] <= outer[name]).all() for name in inner)


def test_a_path_honours_it(pairs):
    scores = {pair.name: torch.arange(pair.size).double() for pair in pairs}
    ranking = Ranking.from_scores(scores, pairs)
    masks = ranking.rounded_to(2).masks(units=0.7)
    assert [int(mask.sum()) % 2 for mask in masks.values()] in ([1, 0, 0, 0], [0, 0, 0, 0])  # a width of 3 may be whole
    assert sum(int(mask.sum()) for mask in masks.values()) <= 0.7 * 15
    assert ranking.multiple_of == 1
    with pytest.raises(ValueError, match=r"^multiple_of: 0 is not allowed"):
        ranking.rounded_to(0)


def test_a_budget_that_the_smallest_rounded_widths_exceed_is_refused(pairs):
    ranking = Ranking.from_scores({pair.name: torch.arange(pair.size).double() for pair in pairs}, pairs)
    assert sum(int(mask.sum()) for mask in ranking.masks(units=0.4).values()) == 6
    with pytest.raises(ValueError, match=r"^units: 0\.4 cannot be reached with widths that are multiples of 4;"):
        ranking.rounded_to(4).masks(units=0.4)
