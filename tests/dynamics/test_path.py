"""The solution path: its order against plain sorting, and the laws every family of masks must obey."""

import math
import time
from itertools import pairwise

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spp.dynamics.bregman import BregmanOptimizer
from spp.dynamics.path import SolutionPath
from spp.dynamics.recorder import PathRecorder
from spp.structure.compact import compact
from spp.structure.cost import Cost, count_cost
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel, Masks
from spp.structure.pair import Pair

T, LAM = 100, 0.4
KINDS = ("macs", "params", "units")


def make_path(pairs, entry, value, occupancy=None, preset="priced", has_costs=None):
    has_costs = preset == "priced" if has_costs is None else has_costs
    occupancy = occupancy or {name: [0] * len(values) for name, values in entry.items()}
    return SolutionPath(
        {name: torch.tensor(values, dtype=torch.float64) for name, values in entry.items()},
        {name: torch.tensor(values, dtype=torch.float64) for name, values in value.items()},
        {name: torch.tensor(values) for name, values in occupancy.items()},
        pairs,
        {"preset": preset, "hyper": {"lam": LAM}, "num_steps_taken": T, "costs_in_dynamics": has_costs},
    )


@st.composite
def paths(draw):
    """Small paths, rich in ties; V and entry time agree on who entered."""
    pairs, entry, value, occupancy = [], {}, {}, {}
    sizes = [draw(st.integers(1, 5)) for _ in range(draw(st.integers(1, 4)))]
    macs, params = ([draw(st.integers(1, 500)) for _ in sizes] for _ in range(2))
    num_macs, num_params = (sum(s * c for s, c in zip(sizes, x, strict=True)) for x in (macs, params))
    cost = Cost(float(num_macs + draw(st.integers(1, 900))), num_params + draw(st.integers(1, 900)))
    for index, size in enumerate(sizes):
        kind = draw(st.sampled_from(["qk", "vo", "mlp"]))
        name = f"{index}.{kind}"
        pairs.append(Pair(name, kind, size, params[index], float(macs[index]), 1, False, str(index), cost))
        entry[name] = draw(st.lists(st.sampled_from([3.5, 20.25, 90.0, math.inf]), min_size=size, max_size=size))
        value[name] = [
            draw(st.sampled_from([-0.3, 0.0, 0.1, 0.399] if e == math.inf else [0.5, 0.9])) for e in entry[name]
        ]
        occupancy[name] = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    occupancy[pairs[0].name][0] = 1
    preset = draw(st.sampled_from(["priced", "textbook", "released"]))
    return make_path(pairs, entry, value, occupancy, preset, preset == "priced" and draw(st.booleans()))


choices = st.fixed_dictionaries(
    {
        "scope": st.sampled_from([None, "global", "family"]),
        "score": st.sampled_from(["entry", "V", "S"]),
        "min_units": st.integers(0, 2),
    }
)


def own_scope(path):
    return "global" if path.meta["preset"] == "priced" else "family"


def plain_units(path, scope, score):
    """(key, tie-break, pair, unit) of every unit, as documented; smaller is better."""
    preset = path.meta["preset"]
    units = []
    mean_macs = sum(p.macs_per_unit * p.size for p in path.pairs) / sum(p.size for p in path.pairs)
    for p, pair in enumerate(path.pairs):
        for u in range(pair.size):
            entry, value, count = (float(x[pair.name][u]) for x in (path.entry, path.V, path.S))
            value = abs(value) if preset == "textbook" else value
            price = pair.macs_per_unit / mean_macs if scope == "global" and not path.meta["costs_in_dynamics"] else 1.0
            key = {
                "entry": (entry if entry < math.inf else T * (1 + (LAM - value) / LAM)) * price,
                "V": -(value / price if value > 0 else value * price),
                "S": -count / price,
            }[score]
            units.append((key, -value, p, u))
    return units


def plain_order(path, scope, score, min_units):
    """The documented order, one unit at a time."""
    scope = scope or own_scope(path)
    units = sorted(plain_units(path, scope, score))
    first, rest, seen = [], [], [0] * len(path.pairs)
    for _, _, p, u in units:
        (first if seen[p] < min_units else rest).append((p, u))
        seen[p] += 1
    if scope == "global":
        return first + rest
    family = [pair.kind == "mlp" for pair in path.pairs]
    size = [sum(pair.size for pair in path.pairs if (pair.kind == "mlp") == f) for f in (False, True)]
    share, count = {}, [0, 0]
    for p, u in first + rest:
        count[family[p]] += 1
        share[p, u] = (count[family[p]] / size[family[p]], family[p])
    return sorted(first, key=share.__getitem__) + sorted(rest, key=share.__getitem__)


@given(paths(), choices)
def test_the_order_is_the_documented_one(path, choice):
    assert [tuple(row) for row in path.order(**choice).tolist()] == plain_order(path, **choice)


def budgets(path, kind, min_units, positions):
    lowest, highest = path.budget_range(kind, min_units)
    return [max(lowest, 1.001) + p * (highest - max(lowest, 1.001)) for p in positions]


def flat(path, masks):
    return torch.cat([masks[pair.name] for pair in path.pairs])


@given(paths(), choices, st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1)), min_size=2, max_size=6))
def test_masks_are_nested_whatever_the_kinds_of_budget(path, choice, wanted):
    masks = []
    for kind, position in wanted:
        (size,) = budgets(path, kind, choice["min_units"], [position])
        if size <= path.budget_range(kind)[1]:
            masks.append(flat(path, path.masks(**{kind: size}, **choice)))
    masks.sort(key=torch.sum)
    for small, large in pairwise(masks):
        assert (small <= large).all()


@given(paths(), choices, st.sampled_from(KINDS), st.floats(0, 1))
def test_a_budget_is_met_to_within_one_unit(path, choice, kind, position):
    (size,) = budgets(path, kind, choice["min_units"], [position])
    highest = path.budget_range(kind)[1]
    if size > highest:
        return
    masks = path.masks(**{kind: size}, **choice)
    cost = path.cost_of(masks)
    spent = {"macs": cost.macs, "params": cost.params, "units": float(flat(path, masks).sum())}[kind]
    price = {"macs": "macs_per_unit", "params": "params_per_unit"}.get(kind)
    largest = max(getattr(pair, price) if price else 1 for pair in path.pairs)
    assert spent <= size * (1 + 1e-9)
    assert spent > size - largest or flat(path, masks).all()
    assert all(masks[pair.name].sum() >= min(choice["min_units"], pair.size) for pair in path.pairs)


@given(paths(), choices, st.floats(0, 1))
def test_ties_are_kept_as_by_a_threshold_per_pool(path, choice, position):
    (size,) = budgets(path, "units", choice["min_units"], [position])
    size = min(size, path.budget_range("units")[1])
    kept = mask_rows(path, path.masks(units=size, **choice))
    floor = set(plain_order(path, **choice)[: sum(min(choice["min_units"], pair.size) for pair in path.pairs)])
    scope = choice["scope"] or own_scope(path)
    key_of = {(p, u): key for key, _, p, u in plain_units(path, scope, choice["score"])}
    expected = set(kept)
    for pool in ({"mlp"}, {"qk", "vo"}) if scope == "family" else ({"mlp", "qk", "vo"},):
        chosen = [key_of[p, u] for p, u in kept - floor if path.pairs[p].kind in pool]
        expected |= {
            (p, u)
            for (p, u), key in key_of.items()
            if path.pairs[p].kind in pool and key <= max(chosen, default=-math.inf)
        }
    assert mask_rows(path, path.masks(units=size, keep_ties=True, **choice)) == expected


def mask_rows(path, masks):
    return {(p, u) for p, pair in enumerate(path.pairs) for u in masks[pair.name].nonzero().flatten().tolist()}


@pytest.mark.parametrize("removed", [0.25, 0.49, 0.7])
def test_with_more_units_never_in_the_support_than_shall_go_the_released_threshold_prunes_nothing(removed):
    num_units = 1000
    occupancy = torch.zeros(num_units, dtype=torch.int64)
    occupancy[:500] = torch.randint(1, 60, (500,), generator=torch.Generator().manual_seed(0))
    pairs = [Pair("mlp", "mlp", num_units, 5, 10.0, 1, False, "m", Cost(11000.0, 6000))]
    values = {"mlp": [0.1] * num_units}
    path = make_path(pairs, {"mlp": [math.inf] * num_units}, values, {"mlp": occupancy.tolist()}, "released")
    kept = path.masks(units=1 - removed, score="S", min_units=0, keep_ties=True)["mlp"]
    threshold = sorted(occupancy.tolist())[round(removed * num_units)]
    assert torch.equal(kept, occupancy >= threshold)
    assert kept.all() == (removed < 0.5)
    assert int(path.masks(units=1 - removed, score="S", min_units=0)["mlp"].sum()) == num_units - round(
        removed * num_units
    )


@given(paths(), choices)
def test_the_whole_budget_keeps_all(path, choice):
    for kind in KINDS:
        assert flat(path, path.masks(**{kind: 1.0}, **choice)).all()


@given(paths(), st.floats(0.2, 1))
def test_family_scope_keeps_equal_fractions(path, share):
    families = [[p.name for p in path.pairs if (p.kind == "mlp") == mlp] for mlp in (False, True)]
    masks = path.masks(units=max(share, 1 / sum(p.size for p in path.pairs)), scope="family", min_units=0)
    kept = [torch.cat([masks[name] for name in names]).double() for names in families if names]
    fractions = [float(flags.mean()) for flags in kept]
    assert max(fractions) - min(fractions) <= max(1 / len(flags) for flags in kept) + 1e-12


@given(paths())
@settings(max_examples=25)
def test_saving_loses_nothing(tmp_path_factory, path):
    folder = tmp_path_factory.mktemp("path")
    file = path.save(folder)
    assert [p.name for p in folder.iterdir()] == ["path.safetensors"]
    for where in (folder, file, str(folder)):
        loaded = SolutionPath.load(where)
        assert (loaded.pairs, loaded.meta, loaded.trace) == (path.pairs, path.meta, None)
        for name in path.entry:
            assert torch.equal(loaded.entry[name], path.entry[name])
            assert torch.equal(loaded.V[name], path.V[name])
            assert torch.equal(loaded.S[name], path.S[name])


def example(preset="priced", occupancy=None):
    pairs = [
        Pair("qk", "qk", 2, 10, 40.0, 1, False, "a", Cost(200.0, 80)),
        Pair("mlp", "mlp", 3, 5, 10.0, 1, False, "m", Cost(200.0, 80)),
    ]
    entry = {"qk": [30.0, math.inf], "mlp": [10.0, 20.0, math.inf]}
    return make_path(pairs, entry, {"qk": [0.5, 0.1], "mlp": [0.9, 0.6, 0.2]}, occupancy, preset)


def rows(path, **choice):
    return [(path.pairs[p].name, u) for p, u in path.order(**choice).tolist()]


def test_one_example_by_hand():
    path = example()
    by_time = [("mlp", 0), ("mlp", 1), ("qk", 0), ("mlp", 2), ("qk", 1)]
    assert rows(path, min_units=0) == rows(path, min_units=0, score="V") == by_time
    assert rows(path) == [("mlp", 0), ("qk", 0), ("mlp", 1), ("mlp", 2), ("qk", 1)]
    # 90 macs lie outside the pairs; the floor costs 10 + 40.
    assert path.budget_range("macs") == (140.0, 200.0)
    masks = path.masks(macs=160.0)
    assert masks["qk"].tolist() == [True, False]
    assert masks["mlp"].tolist() == [True, True, True]
    assert path.cost_of(masks) == Cost(160.0, 70)
    assert path.cost_of(path.masks(macs=0.75)) == Cost(150.0, 65)
    assert path.cost_of(path.masks(params=60)) == Cost(140.0, 60)
    assert path.cost_of(path.masks(units=0.7)) == Cost(150.0, 65)


def test_a_preset_without_prices_pays_for_cost_in_the_global_list():
    for preset, expected in (
        ("priced", [("qk", 0), ("mlp", 0), ("mlp", 1), ("mlp", 2), ("qk", 1)]),
        ("released", [("mlp", 0), ("mlp", 1), ("qk", 0), ("mlp", 2), ("qk", 1)]),
    ):
        path = example(preset)
        # Prices 40 : 10, so 9 steps of attention count like 36 of the MLP.
        path.entry["qk"][0] = 9.0
        assert rows(path, scope="global", min_units=0) == expected


def test_a_negative_v_is_the_worse_the_dearer_the_unit():
    path = example("released")
    path.V["qk"][:] = torch.tensor([0.2, -0.1])
    path.V["mlp"][:] = torch.tensor([0.1, -0.1, -0.2])
    expected = [("mlp", 0), ("qk", 0), ("mlp", 1), ("mlp", 2), ("qk", 1)]
    assert rows(path, scope="global", score="V", min_units=0) == expected


def test_occupancy_orders_as_the_released_code():
    path = example("released", {"qk": [0, 7], "mlp": [1, 3, 2]})
    assert rows(path, score="S", scope="family", min_units=0) == [
        ("mlp", 1),
        ("qk", 1),
        ("mlp", 2),
        ("qk", 0),
        ("mlp", 0),
    ]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"macs": 0.9, "score": "M"}, "score: 'M' is not known; allowed: entry, V, S; use entry"),
        ({"macs": 0.9, "score": "S"}, "score: S is not allowed: the search sampled no occupancy; use entry"),
        ({"macs": 0.9, "scope": "layer"}, "scope: 'layer' is not known"),
        ({"macs": 0.9, "min_units": -1}, "min_units: -1 is not allowed"),
        ({"macs": 1.2}, "macs: 1.2 cannot be reached; allowed: 140 to 200, or 0.7 to 1 of the dense model"),
        ({"macs": -0.5}, "macs: -0.5 cannot be reached"),
        ({"params": 81}, "params: 81 cannot be reached; allowed: 60 to 80"),
        ({"units": math.nan}, "units: nan cannot be reached"),
        ({}, "budget: got none"),
    ],
)
def test_mistakes_are_named_in_one_line(choice, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        example().masks(**choice)
    assert "\n" not in str(caught.value)


def test_pairs_must_be_those_of_the_optimizer():
    opt = BregmanOptimizer({"qk": nn.Parameter(torch.ones(3))})
    with pytest.raises(ValueError, match=r"^pairs: differ from the optimizer's masks"):
        SolutionPath.from_optimizer(opt, example().pairs)


@pytest.mark.parametrize(
    ("with_pairs", "choice", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"unit_costs": {"qk": 4.0, "mlp": 1.0}}, True),
        (True, {"preset": "textbook"}, False),
    ],
)
def test_the_path_knows_whether_the_dynamics_had_the_costs(with_pairs, choice, expected):
    pairs = example().pairs
    masks = Masks((pair.name, nn.Parameter(torch.ones(pair.size))) for pair in pairs)
    masks.pairs = pairs
    opt = BregmanOptimizer(masks if with_pairs else dict(masks), **choice)
    assert SolutionPath.from_optimizer(opt, pairs).meta["costs_in_dynamics"] is expected


def test_masks_of_several_dimensions_give_a_path_of_units():
    mask = nn.Parameter(torch.ones(2, 3))
    opt = BregmanOptimizer({"m": mask})
    mask.grad = torch.arange(6.0).view(2, 3)
    opt.step()
    path = SolutionPath.from_optimizer(opt, [Pair("m", "mlp", 6, 1, 1.0)])
    assert rows(path) == [("m", unit) for unit in range(6)]


@pytest.mark.parametrize("where", [None, 3])
def test_what_is_no_path_is_refused_in_one_line(where):
    for call in (SolutionPath.load, example().save):
        with pytest.raises(
            ValueError, match=r"^path: (NoneType|int) is not allowed: must be a folder or file; [^\n]*$"
        ):
            call(where)


@pytest.mark.parametrize("per_head", [False, True])
def test_fifty_thousand_units_and_twenty_budgets_take_under_a_second(per_head):
    generator = torch.Generator().manual_seed(0)
    cost = Cost(5e9, 50_000_000)
    pairs, value = [], {}
    for index in range(24):
        for kind, size, macs in (("qk", 64, 4e5), ("vo", 64, 4e5), ("mlp", 1990, 3e4)):
            name = f"{index}.{kind}"
            heads = 8 if per_head and kind != "mlp" else 1
            pairs.append(Pair(name, kind, size, 768, macs, heads, heads > 1, name, cost))
            value[name] = torch.randn(size, generator=generator, dtype=torch.float64)
    assert sum(pair.size for pair in pairs) > 50_000
    entry = {name: torch.where(v > LAM, 50 / v, torch.inf) for name, v in value.items()}
    occupancy = {name: torch.zeros_like(v).long() for name, v in value.items()}
    meta = {"preset": "textbook", "hyper": {"lam": LAM}, "num_steps_taken": T, "costs_in_dynamics": False}
    path = SolutionPath(entry, value, occupancy, pairs, meta)
    start = time.process_time()
    for index in range(20):
        path.masks(macs=0.5 + index / 40)
    assert time.process_time() - start < 1.0


def test_from_a_search_on_a_model_to_a_compact_one(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5
    ).eval()
    pairs = find_pairs(model)
    masked = MaskedModel(model, pairs)
    opt = BregmanOptimizer(masked.masks, num_steps=20)
    recorder = PathRecorder(opt, every=4)
    images, labels = torch.randn(16, 3, 16, 16), torch.randint(5, (16,))
    for step in range(23):
        opt.zero_grad()
        nn.functional.cross_entropy(masked(images), labels).backward()
        if step < 3:
            opt.calibrate()
        else:
            opt.step()
            recorder.record()
    path = SolutionPath.from_optimizer(opt, pairs, trace=recorder.trace(), meta={"seed": 0})
    loaded = SolutionPath.load(path.save(tmp_path))
    assert loaded.meta == path.meta
    assert (path.meta["num_steps_taken"], path.meta["provenance"]) == (20, {"seed": 0})
    assert loaded.trace.steps.tolist() == [4, 8, 12, 16, 20]
    for pair in pairs:
        assert torch.equal(loaded.trace.gamma[pair.name], path.trace.gamma[pair.name])
        assert torch.equal(loaded.entry[pair.name], opt.state_of(pair.name)["entry"])
    example_input = torch.zeros(1, 3, 16, 16)
    largest = max(pair.macs_per_unit for pair in pairs)
    for share in (0.9, 0.7, 0.5):
        masks = loaded.masks(macs=share)
        counted = count_cost(compact(model, masks), example_input)
        assert loaded.cost_of(masks) == counted
        assert 0 <= share * count_cost(model, example_input).macs - counted.macs < largest


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("scope", ["global", "family"])
def test_budgets_of_heads_that_choose_alone_are_met_by_the_compact_model(kind, scope):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=6, num_classes=5
    ).eval()
    pairs = find_pairs(model, per_head=True)
    value = {pair.name: torch.randn(pair.size).tolist() for pair in pairs}
    path = make_path(pairs, {name: [math.inf] * len(values) for name, values in value.items()}, value)
    dense = getattr(count_cost(model, torch.zeros(1, 3, 16, 16)), kind)
    price = {"macs": "macs_per_unit", "params": "params_per_unit"}[kind]
    largest = max(getattr(pair, price) * pair.num_heads for pair in pairs)
    smaller = {pair.name: torch.zeros(pair.size, dtype=torch.bool) for pair in pairs}
    for share in (0.3, 0.5, 0.7, 0.9):
        masks = path.masks(**{kind: share}, scope=scope)
        counted = count_cost(compact(model, masks), torch.zeros(1, 3, 16, 16))
        assert path.cost_of(masks) == counted
        assert 0 <= share * dense - getattr(counted, kind) < largest
        assert all((smaller[name] <= mask).all() for name, mask in masks.items())
        smaller = masks
