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


def layers(num_layers, num_heads, width, hidden):
    """Attentions whose heads choose alone, and MLPs, all layers alike."""
    pairs = []
    for layer in range(num_layers):
        for kind in ("qk", "vo"):
            pairs.append(Pair(f"{layer}.{kind}", kind, num_heads * width, 3, 3.0, num_heads, True, str(layer)))
        pairs.append(Pair(f"{layer}.mlp", "mlp", hidden, 2, 2.0, module=f"{layer}.mlp"))
    return pairs


@pytest.mark.parametrize("form", ["heads", "deployable", "uniform"])
@pytest.mark.parametrize("seed", range(4))
def test_forms_have_whole_heads_fit_the_budget_and_are_nested(form, seed):
    pairs = layers(3, 4, 5, 12)
    scores = {
        pair.name: torch.rand(pair.size, generator=torch.Generator().manual_seed(seed * 100 + place)).double()
        for place, pair in enumerate(pairs)
    }
    ranking = Ranking.from_scores(scores, pairs).rounded_to(4, form)
    larger = None
    for size in (0.9, 0.7, 0.5, 0.4):
        masks = ranking.masks(macs=size)
        assert cost_of(pairs, masks).macs <= size * sum(pair.size * pair.macs_per_unit for pair in pairs)
        kept = {name: mask.view(4, -1) if "mlp" not in name else mask for name, mask in masks.items()}
        whole = {name: heads.all(1) for name, heads in kept.items() if "mlp" not in name}
        assert all(torch.equal(whole[name], kept[name].any(1)) for name in whole)
        assert all(torch.equal(whole[f"{layer}.qk"], whole[f"{layer}.vo"]) for layer in range(3))
        numbers = [int(whole[f"{layer}.vo"].sum()) for layer in range(3)]
        widths = [int(kept[f"{layer}.mlp"].sum()) for layer in range(3)]
        assert all(width % 4 == 0 for width in widths)
        if form == "uniform":
            assert len(set(numbers)) == len(set(widths)) == 1
            assert numbers[0] in (1, 2, 4)
        if form == "deployable":
            assert set(numbers) <= {0, 4}
        # Of an MLP the best units stay.
        for layer in range(3):
            best = scores[f"{layer}.mlp"].argsort(descending=True)[: widths[layer]]
            assert bool(masks[f"{layer}.mlp"][best].all())
        if larger is not None:
            assert all(bool((larger[name] | ~mask).all()) for name, mask in masks.items())
        larger = masks


def test_a_form_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match=r"^form: 'square' is not known; allowed: free, heads, deployable, uniform; "):
        Ranking.from_scores({"m": torch.rand(3)}, [Pair("m", "mlp", 3, 1, 1.0)]).rounded_to(1, "square")
