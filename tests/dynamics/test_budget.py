"""Prefixes, ranges and costs against sums written out."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spp.dynamics.budget import KINDS, Budget, absolute_size, budget_range, cost_of, join, prefix_masks, split
from spp.dynamics.order import unit_order
from spp.structure.cost import Cost
from spp.structure.pair import Pair


@st.composite
def problems(draw):
    """Pairs with a model around them (or none), an order, and a floor the order respects."""
    num_pairs = draw(st.integers(1, 4))
    prices = st.integers(1, 10_000)
    heads = [draw(st.sampled_from([0, 0, 1, 2, 3])) for _ in range(num_pairs)]
    sizes = [max(num_heads, 1) * draw(st.integers(1, 5)) for num_heads in heads]
    macs, params = ([draw(prices) for _ in sizes] for _ in range(2))
    cost = None
    if draw(st.booleans()):
        cost = Cost(
            float(sum(s * m for s, m in zip(sizes, macs, strict=True)) + draw(prices)),
            sum(s * p for s, p in zip(sizes, params, strict=True)) + draw(prices),
        )
    pairs = [
        Pair(f"p{i}", "qk", size, params[i], float(macs[i]), max(heads[i], 1), heads[i] > 0, "m", cost)
        for i, size in enumerate(sizes)
    ]
    shuffled = draw(st.permutations(range(sum(sizes))))
    min_units = draw(st.integers(0, 2))
    pair_of = [i for i, size in enumerate(sizes) for _ in range(size)]
    first = [
        unit for i, unit in enumerate(shuffled) if sum(pair_of[u] == pair_of[unit] for u in shuffled[:i]) < min_units
    ]
    return pairs, first + [u for u in shuffled if u not in first], min_units


def price(pair, kind):
    return {"macs": pair.macs_per_unit, "params": pair.params_per_unit, "units": 1}[kind]


def total(pairs, kind):
    model = pairs[0].model_cost
    if model is None or kind == "units":
        return sum(pair.size * price(pair, kind) for pair in pairs)
    return getattr(model, kind)


def cost_of_kept(pairs, kept, kind):
    """Every head as wide as the widest of its pair, where heads choose alone."""
    removed, start = 0, 0
    for pair in pairs:
        units = [unit - start for unit in kept if start <= unit < start + pair.size]
        num_paid, start = len(units), start + pair.size
        if pair.per_head and kind != "units":
            width = pair.size // pair.num_heads
            num_paid = pair.num_heads * max(sum(u // width == head for u in units) for head in range(pair.num_heads))
        removed += (pair.size - num_paid) * price(pair, kind)
    return total(pairs, kind) - removed


def kept_units(pairs, masks):
    return set(torch.cat([masks[pair.name] for pair in pairs]).nonzero().flatten().tolist())


@given(problems(), st.sampled_from(KINDS), st.floats(0, 1))
def test_the_mask_is_the_longest_prefix_that_fits(problem, kind, position):
    pairs, order, min_units = problem
    lowest, highest = budget_range(pairs, kind, min_units)
    size = lowest + position * (highest - lowest)
    assume(size > 1 and abs(size - round(size)) > 1e-3)
    masks = prefix_masks(pairs, torch.tensor(order), Budget(kind, size), min_units)
    fitting = [n for n in range(len(order) + 1) if cost_of_kept(pairs, order[:n], kind) <= size]
    assert kept_units(pairs, masks) == set(order[: max(fitting)])
    assert all(mask.dtype == torch.bool and mask.sum() >= min(min_units, len(mask)) for mask in masks.values())


@given(problems(), st.sampled_from(KINDS))
def test_the_range_is_what_the_floor_and_the_dense_model_cost(problem, kind):
    pairs, order, min_units = problem
    floor = sum(min(min_units, pair.size) for pair in pairs)
    lowest, highest = budget_range(pairs, kind, min_units)
    # Heads that choose alone may have their floor in one head.
    firsts = [sum(pair.size for pair in pairs[:i]) + u for i, pair in enumerate(pairs) for u in range(pair.size)]
    starts = [sum(pair.size for pair in pairs[:i]) for i, pair in enumerate(pairs) for _ in range(pair.size)]
    firsts = [unit for unit, start in zip(firsts, starts, strict=True) if unit - start < min_units]
    assert lowest == pytest.approx(cost_of_kept(pairs, firsts, kind))
    assert lowest >= cost_of_kept(pairs, order[:floor], kind) - 1e-6
    assert highest == total(pairs, kind)
    is_exact = kind == "units" or not any(pair.per_head for pair in pairs)
    for size, num_kept in ((lowest, floor), (highest, len(order))):
        if size > 1:
            masks = prefix_masks(pairs, torch.tensor(order), Budget(kind, size), min_units)
            num_found = len(kept_units(pairs, masks))
            assert num_found == num_kept if is_exact else num_found >= num_kept
    for size in (lowest * 0.99 - 1, highest * 1.01 + 1, math.nan, math.inf):
        if 0 < size <= 1:
            continue
        with pytest.raises(ValueError, match=f"^{kind}: .* cannot be reached; allowed:") as caught:
            prefix_masks(pairs, torch.tensor(order), Budget(kind, size), min_units)
        assert "\n" not in str(caught.value)


@given(problems(), st.sampled_from(KINDS), st.fractions(0, 1, max_denominator=50))
def test_a_fraction_is_of_the_dense_total(problem, kind, share):
    pairs, order, min_units = problem
    lowest, highest = budget_range(pairs, kind, min_units)
    size = float(share) * highest
    assume(size >= lowest and size > 1)
    order = torch.tensor(order)
    by_share = prefix_masks(pairs, order, Budget(kind, float(share)), min_units)
    by_size = prefix_masks(pairs, order, Budget(kind, size), min_units)
    assert kept_units(pairs, by_share) == kept_units(pairs, by_size)


@given(problems(), st.data())
def test_cost_of_is_the_sum_of_what_is_left(problem, data):
    pairs, order, _ = problem
    kept = order[: data.draw(st.integers(0, len(order)))]
    flags = torch.zeros(len(order), dtype=torch.bool)
    flags[kept] = True
    cost = cost_of(pairs, split(pairs, flags))
    assert cost.macs == pytest.approx(cost_of_kept(pairs, kept, "macs"))
    assert cost.params == cost_of_kept(pairs, kept, "params")
    assert isinstance(cost.params, int)


def test_a_pair_without_a_mask_is_kept(pairs):
    assert cost_of(pairs, {}) == Cost(60 * 3 + 40 * 4 + 10 * 6 + 30 * 2, 20 * 3 + 18 * 4 + 5 * 6 + 5 * 2)
    with pytest.raises(ValueError, match=r"^masks: 'x' is no pair; allowed: b\.0\.attn\.qk, "):
        cost_of(pairs, {"x": torch.ones(1)})


def test_split_and_join_are_inverse(pairs):
    flat = torch.arange(15.0, dtype=torch.float64)
    assert [len(piece) for piece in split(pairs, flat).values()] == [3, 4, 6, 2]
    assert torch.equal(join(pairs, split(pairs, flat)), flat)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "budget: got none; give exactly one of macs, params, units, e.g. macs=0.5"),
        ({"macs": 0.5, "units": 0.5}, "budget: got macs and units; give exactly one of macs, params, units"),
        ({"macs": "2.6G"}, "macs: '2.6G' is not allowed: must be a number; use macs=0.5"),
        ({"units": True}, "units: True is not allowed: must be a number"),
    ],
)
def test_budgets_that_are_none(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Budget.of(**given)


def test_the_refusal_names_the_reachable_range(pairs):
    with pytest.raises(ValueError, match=r"^macs: ") as caught:
        prefix_masks(pairs, torch.arange(15), Budget("macs", 1.2), 1)
    assert str(caught.value) == (
        "macs: 1.2 cannot be reached; allowed: 140 to 460, or 0.3044 to 1 of the dense model, at min_units=1;"
        " use macs=0.5"
    )
    order = torch.tensor([0, 3, 7, 13, *(unit for unit in range(15) if unit not in (0, 3, 7, 13))])
    assert all(mask.sum() == 1 for mask in prefix_masks(pairs, order, Budget("macs", 0.3044)).values())


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(3), torch.tensor(0.5), np.array(2.0), Fraction(1, 2)])
def test_scalars_of_numpy_and_torch_are_numbers(value):
    assert Budget.of(macs=value) == Budget("macs", float(value))


@pytest.mark.parametrize("value", [np.bool_(True), torch.tensor(True), torch.ones(2, 2), np.ones(1), 1j])
def test_other_things_are_not(value):
    with pytest.raises(ValueError, match=r"^macs: [^\n]* is not allowed: must be a number; use macs=0\.5$"):
        Budget.of(macs=value)


def test_absolute_size(pairs):
    assert absolute_size(pairs, "macs", 0.5) == 230.0
    assert absolute_size(pairs, "macs", 200.0) == 200.0
    assert absolute_size(pairs, "units", 1.0) == 15.0
    with pytest.raises(ValueError, match=r"^budget\.values: 0\.1 cannot be reached; allowed: 140 to .*; use budget\.v"):
        absolute_size(pairs, "macs", 0.1, field="budget.values")
    with pytest.raises(ValueError, match=r"^min_units: 1\.5 is not allowed: must be a whole number"):
        absolute_size(pairs, "macs", 0.5, 1.5)


def test_kinds_are_checked(pairs):
    with pytest.raises(ValueError, match=r"^kind: 'flops' is not known; allowed: macs, params, units; use macs$"):
        budget_range(pairs, "flops")


@st.composite
def attention_problems(draw):
    """Attentions of both pairs and an MLP, priced with a model around them (or none), and a key for every unit."""
    pairs = []
    prices = st.integers(1, 10_000)
    for index in range(draw(st.integers(1, 2))):
        heads = draw(st.integers(1, 3))
        per_head = {"qk": draw(st.booleans())}
        per_head["vo"] = draw(st.sampled_from([per_head["qk"], not per_head["qk"]]))
        for kind in ("qk", "vo"):
            copies = heads if per_head[kind] else 1
            params, macs = (heads // copies * draw(prices) for _ in range(2))
            size = copies * draw(st.integers(1, 3))
            extra = draw(st.integers(0, 100)) if kind == "vo" else 0
            name = f"{index}.attn.{kind}"
            pairs.append(Pair(name, kind, size, params, float(macs), heads, per_head[kind], params_per_head=extra))
    pairs.append(Pair("mlp", "mlp", draw(st.integers(1, 4)), draw(prices), float(draw(prices))))
    if draw(st.booleans()):
        everything = {kind: set(range(sum(p.size for p in pairs))) for kind in ("macs", "params")}
        macs, params = (attention_cost(pairs, kept, kind) + draw(prices) for kind, kept in everything.items())
        pairs = [replace(pair, model_cost=Cost(float(macs), round(params))) for pair in pairs]
    num_units = sum(pair.size for pair in pairs)
    key = draw(st.lists(st.integers(0, 9), min_size=num_units, max_size=num_units))
    return pairs, torch.tensor(key).double(), draw(st.integers(0, 3))


def heads_of(pairs, kept):
    """Kept channels by pair and head: {pair: [count of head 0, ...]}."""
    found, start = {}, 0
    for pair in pairs:
        units = [unit - start for unit in kept if start <= unit < start + pair.size]
        start += pair.size
        width = pair.size // pair.num_heads if pair.per_head else pair.size
        heads = range(pair.num_heads)
        found[pair.name] = [sum(u // width == h or not pair.per_head for u in units) for h in heads]
    return found


def attention_cost(pairs, kept, kind):
    """Cost of the units of `kept`: heads with a value channel, all as wide as the widest of them."""
    if kind == "units":
        return len(kept)
    counts, spent = heads_of(pairs, kept), 0
    for pair in pairs:
        if pair.kind == "mlp":
            spent += counts[pair.name][0] * price(pair, kind)
            continue
        there = [head for head, count in enumerate(counts[pair.name[:-2] + "vo"]) if count]
        width = max((counts[pair.name][head] for head in there), default=0)
        spent += width * len(there) * price(pair, kind) / (1 if pair.per_head else pair.num_heads)
        spent += len(there) * pair.params_per_head * (kind == "params")
    return spent


def cost_with_model(pairs, kept, kind):
    model = pairs[0].model_cost
    if model is None or kind == "units":
        return attention_cost(pairs, kept, kind)
    everything = range(sum(pair.size for pair in pairs))
    return getattr(model, kind) - attention_cost(pairs, everything, kind) + attention_cost(pairs, kept, kind)


@given(attention_problems(), st.randoms(use_true_random=False))
def test_the_cost_of_attentions_is_that_of_the_heads_that_are_there(problem, random):
    pairs, key, _ = problem
    kept = [unit for unit in range(len(key)) if random.random() < 0.5]
    flags = torch.zeros(len(key), dtype=torch.bool)
    flags[kept] = True
    cost = cost_of(pairs, split(pairs, flags))
    assert (cost.macs, cost.params) == tuple(pytest.approx(cost_with_model(pairs, kept, k)) for k in KINDS[:2])


@given(attention_problems(), st.sampled_from(KINDS), st.floats(0, 1), st.booleans())
def test_the_longest_prefix_that_fits_with_heads_that_leave(problem, kind, position, is_ordered):
    pairs, key, min_units = problem
    order = unit_order(pairs, key, key, min_units=min_units) if is_ordered else torch.argsort(key, stable=True)
    min_units = min_units if is_ordered else 0
    lowest, highest = budget_range(pairs, kind, min_units)
    size = lowest + position * (highest - lowest)
    assume(size > 1 and abs(size - round(size)) > 1e-3)
    masks = prefix_masks(pairs, order, Budget(kind, size), min_units)
    prefixes = [cost_with_model(pairs, order[:n].tolist(), kind) for n in range(len(order) + 1)]
    assert prefixes == sorted(prefixes)
    assert kept_units(pairs, masks) == set(order[: max(n for n, c in enumerate(prefixes) if c <= size)].tolist())
    assert all(mask.sum() >= min(min_units, len(mask)) for mask in masks.values())


@given(attention_problems(), st.sampled_from(["macs", "params"]), st.sampled_from(["global", "family"]))
def test_a_unit_adds_a_channel_of_every_head_or_one_head_at_most(problem, kind, scope):
    pairs, key, min_units = problem
    order = unit_order(pairs, key, key, scope=scope, min_units=min_units).tolist()
    pair_of = [pair for pair in pairs for _ in range(pair.size)]
    floor = sum(min(min_units, pair.size) for pair in pairs)
    for length in range(floor, len(order)):
        kept, pair = order[:length], pair_of[order[length]]
        added = attention_cost(pairs, order[: length + 1], kind) - attention_cost(pairs, kept, kind)
        counts = heads_of(pairs, kept)
        if pair.kind == "mlp":
            assert added == price(pair, kind)
            continue
        channel = price(pair, kind) * (pair.num_heads if pair.per_head else 1)
        before, after = (counts[pair.name[:-2] + "vo"], heads_of(pairs, order[: length + 1])[pair.name[:-2] + "vo"])
        come = [head for head in range(pair.num_heads) if after[head] and not before[head]]
        there = [head for head in range(pair.num_heads) if before[head]]
        if not come:
            assert added <= channel + 1e-6
            continue
        # No "qk" unit outside of the floor came before its head, which so is as wide as the others or the floor.
        qk, vo = (next(p for p in pairs if p.name == pair.name[:-2] + k) for k in ("qk", "vo"))
        per_channel = {p.kind: price(p, kind) / (1 if p.per_head else p.num_heads) for p in (qk, vo)}
        width = {p.kind: max((counts[p.name][h] for h in there), default=0) for p in (qk, vo)}
        head = width["qk"] * per_channel["qk"] + max(width["vo"], 1) * per_channel["vo"]
        head += vo.params_per_head * (kind == "params")
        if min_units <= min(p.size // p.num_heads if p.per_head else p.size for p in (qk, vo)):
            assert added <= len(come) * head + 1e-6


@given(attention_problems(), st.sampled_from(KINDS))
@settings(max_examples=40)
def test_the_smallest_budget_is_that_of_the_dearest_floor(problem, kind):
    pairs, _, min_units = problem
    starts = [sum(pair.size for pair in pairs[:index]) for index in range(len(pairs))]
    lowest = 0.0
    owners = {pair.owner for pair in pairs}
    for owner in owners:
        mine = [index for index, pair in enumerate(pairs) if pair.owner == owner]
        floors = [
            itertools.combinations(range(starts[i], starts[i] + pairs[i].size), min(min_units, pairs[i].size))
            for i in mine
        ]
        lowest += max(attention_cost(pairs, sum(chosen, ()), kind) for chosen in itertools.product(*floors))
    everything = range(sum(pair.size for pair in pairs))
    rest = cost_with_model(pairs, everything, kind) - attention_cost(pairs, everything, kind)
    assert budget_range(pairs, kind, min_units)[0] == pytest.approx(rest + lowest)
