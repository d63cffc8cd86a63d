"""The ranking: its order of signed scores against plain sorting, and its file."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spp.dynamics.budget import OutOfReachError
from spp.dynamics.path import SolutionPath
from spp.dynamics.ranking import Ranking, open_path
from spp.structure.cost import Cost
from spp.structure.pair import Pair

SCORES = [-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0]


@st.composite
def rankings(draw):
    """Small rankings with scores of both signs, rich in ties."""
    sizes = [draw(st.integers(1, 5)) for _ in range(draw(st.integers(1, 4)))]
    macs = [draw(st.integers(1, 500)) for _ in sizes]
    total = sum(size * cost for size, cost in zip(sizes, macs, strict=True))
    cost = Cost(float(total + draw(st.integers(1, 900))), 10_000)
    kinds = [draw(st.sampled_from(["qk", "vo", "mlp"])) for _ in sizes]
    pairs = [
        Pair(f"{i}.{kind}", kind, size, 1, float(price), 1, False, str(i), cost)
        for i, (kind, size, price) in enumerate(zip(kinds, sizes, macs, strict=True))
    ]
    scores = {
        p.name: torch.tensor(draw(st.lists(st.sampled_from(SCORES), min_size=p.size, max_size=p.size))) for p in pairs
    }
    return Ranking.from_scores(scores, pairs, per_cost=draw(st.booleans()))


def plain_order(ranking, scope, min_units):
    """The documented order, one unit at a time."""
    units = []
    mean_macs = sum(p.macs_per_unit * p.size for p in ranking.pairs) / sum(p.size for p in ranking.pairs)
    for p, pair in enumerate(ranking.pairs):
        price = pair.macs_per_unit / mean_macs if scope == "global" and ranking.meta["per_cost"] else 1.0
        for u, score in enumerate(ranking.scores[pair.name].tolist()):
            units.append((-(score / price if score > 0 else score * price), -score, p, u))
    units.sort()
    first, rest, seen = [], [], [0] * len(ranking.pairs)
    for _, _, p, u in units:
        (first if seen[p] < min_units else rest).append((p, u))
        seen[p] += 1
    if scope == "global":
        return first + rest
    is_mlp = [pair.kind == "mlp" for pair in ranking.pairs]
    size = [sum(pair.size for pair in ranking.pairs if (pair.kind == "mlp") == f) for f in (False, True)]
    share, count = {}, [0, 0]
    for p, u in first + rest:
        count[is_mlp[p]] += 1
        share[p, u] = (count[is_mlp[p]] / size[is_mlp[p]], is_mlp[p])
    return sorted(first, key=share.__getitem__) + sorted(rest, key=share.__getitem__)


@given(rankings(), st.sampled_from(["global", "family"]), st.integers(0, 2))
def test_the_order_is_the_documented_one(ranking, scope, min_units):
    assert [tuple(row) for row in ranking.order(scope=scope, min_units=min_units).tolist()] == plain_order(
        ranking, scope, min_units
    )


@given(rankings(), st.sampled_from(["global", "family"]), st.floats(0, 1), st.floats(0, 1))
def test_masks_are_nested_and_fill_their_budget(ranking, scope, one, other):
    lowest, highest = ranking.budget_range("macs")
    lowest = max(lowest, 1.001)
    small, large = (lowest + share * (highest - lowest) for share in sorted((one, other)))
    few, many = (ranking.masks(macs=size, scope=scope) for size in (small, large))
    assert all(bool((many[name] | ~few[name]).all()) for name in few)
    spent = ranking.cost_of(many).macs
    assert spent <= large * (1 + 1e-9)
    if spent < highest:
        assert large - spent < max(pair.macs_per_unit for pair in ranking.pairs)


@pytest.mark.parametrize("scope", ["global", "family"])
def test_where_tokens_have_left_fractions_are_those_of_the_dense_model(pairs, scope, tmp_path):
    scores = {p.name: torch.rand(p.size, generator=torch.Generator().manual_seed(0)) for p in pairs}
    model, tokens = Cost(500.0, 1000), {"blocks.0": [0, 2]}
    pairs = [replace(pair, model_cost=model) for pair in pairs]
    dense = Cost(2 * model.macs, model.params)
    Ranking.from_scores(scores, pairs, tokens=tokens, dense=dense).save(tmp_path)
    short, plain = Ranking.load(tmp_path), Ranking.from_scores(scores, pairs)
    assert (short.tokens, plain.tokens) == (tokens, {})
    assert (short.dense_total("macs"), short.budget_range("macs")[1]) == (2 * model.macs, model.macs)
    for share in (0.35, 0.45, 0.5):
        masks = short.masks(macs=share, scope=scope)
        for same in (short.masks(macs=share * dense.macs, scope=scope), plain.masks(macs=2 * share, scope=scope)):
            assert all(torch.equal(masks[name], same[name]) for name in same)
    for kind in ("params", "units"):
        masks, same = (ranking.masks(**{kind: 0.9}, scope=scope) for ranking in (short, plain))
        assert all(torch.equal(masks[name], same[name]) for name in same)
    with pytest.raises(OutOfReachError, match=r"^macs: 0.6 cannot be .* to 0.5 of the dense model, .*use macs=0.5$"):
        short.masks(macs=0.6, scope=scope)


def test_harmful_units_come_last_and_of_these_the_dear_ones(pairs):
    # prices 60, 40, 10, 30: all attention units help, all MLP units harm alike
    scores = {p.name: torch.full((p.size,), -1.0 if p.kind == "mlp" else 1.0) for p in pairs}
    order = Ranking.from_scores(scores, pairs).order(min_units=0)[:, 0].tolist()
    assert order == [1] * 4 + [0] * 3 + [2] * 6 + [3] * 2
    # A constant added to the worth of all would have changed the order of the first two kinds:
    shifted = Ranking.from_scores({name: score + 100 for name, score in scores.items()}, pairs)
    assert shifted.order(min_units=0)[:, 0].tolist() == [2] * 6 + [3] * 2 + [1] * 4 + [0] * 3


def test_what_is_saved_is_loaded(pairs, tmp_path):
    generator = torch.Generator().manual_seed(0)
    scores = {p.name: torch.randn(p.size, generator=generator) for p in pairs}
    ranking = Ranking.from_scores(scores, pairs, per_cost=False, meta={"stage": "abc", "seed": 3})
    file = ranking.save(tmp_path / "deep")
    assert file == tmp_path / "deep" / "path.safetensors"
    for where in (file, file.parent, str(file)):
        for loaded in (Ranking.load(where), open_path(where)):
            assert isinstance(loaded, Ranking)
            assert (loaded.pairs, loaded.meta) == (ranking.pairs, ranking.meta)
            assert all(torch.equal(loaded.scores[name], scores[name].double()) for name in scores)
            assert torch.equal(loaded.order(), ranking.order())
    assert loaded.meta["provenance"] == {"stage": "abc", "seed": 3}


def test_open_path_reads_either_kind_and_load_only_its_own(pairs, tmp_path):
    def vectors(value):
        return {p.name: torch.full((p.size,), value) for p in pairs}

    path = SolutionPath(
        vectors(math.inf),
        vectors(0.5),
        vectors(0),
        pairs,
        {"preset": "priced", "hyper": {"lam": 0.4}, "provenance": {}},
    )
    path.save(tmp_path / "path")
    Ranking.from_scores(vectors(0.5), pairs).save(tmp_path / "ranking")
    assert isinstance(open_path(tmp_path / "path"), SolutionPath)
    assert isinstance(open_path(tmp_path / "ranking"), Ranking)
    with pytest.raises(ValueError, match=r"^path: .* is 'spp-path-2', not 'spp-ranking-1'; .*Ranking.save wrote$"):
        Ranking.load(tmp_path / "path")
    with pytest.raises(ValueError, match=r"^path: .* is 'spp-ranking-1', not 'spp-path-2'; .*SolutionPath.save wrote$"):
        SolutionPath.load(tmp_path / "ranking")


def test_damaged_and_missing_files_are_refused_in_one_line(pairs, tmp_path):
    file = Ranking.from_scores({p.name: torch.ones(p.size) for p in pairs}, pairs).save(tmp_path)
    content = file.read_bytes()
    for broken in (content[:-3], content[:-1] + b"\x01", b"", b"{}"):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"^path: [^\n]* (copy it again or rerun the search)$"):
            open_path(file)
    with pytest.raises(ValueError, match=r"^path: .* does not exist"):
        open_path(tmp_path / "none")
    with pytest.raises(ValueError, match=r"^path: int is not allowed"):
        open_path(3)


def test_scores_that_cannot_order_are_refused(pairs):
    scores = {p.name: torch.ones(p.size) for p in pairs}
    with pytest.raises(ValueError, match=r"^scores: b\.0\.mlp has 1 that are not finite; [^\n]*$"):
        Ranking.from_scores(scores | {"b.0.mlp": torch.tensor([1.0, 1, 1, 1, 1, math.nan])}, pairs)
    for wrong in (scores | {"other": torch.ones(1)}, scores | {"b.0.mlp": torch.ones(5)}):
        with pytest.raises(ValueError, match=r"^scores: differ from the pairs"):
            Ranking.from_scores(wrong, pairs)
    with pytest.raises(ValueError, match=r"^scope: 'layer' is not known"):
        Ranking.from_scores(scores, pairs).masks(macs=0.9, scope="layer")
