import pytest
import torch

from spp.dynamics.ranking import Ranking
from spp.methods.units.magnitude.config import MagnitudeConfig


def plain_score(model, pair, unit, norm):
    """One unit's weights, gathered by hand from timm's layout."""
    module = model.get_submodule(pair.module)
    if pair.kind == "mlp":
        weights = [module.fc1.weight[unit], module.fc2.weight[:, unit]]
    else:
        width = module.qkv.out_features // 3
        head_width = width // module.num_heads
        rows = [unit] if pair.per_head else [h * head_width + unit for h in range(module.num_heads)]
        query, key, value = module.qkv.weight.split(width)
        weights = [query[rows], key[rows]] if pair.kind == "qk" else [value[rows], module.proj.weight[:, rows]]
    flat = torch.cat([w.flatten() for w in weights]).double()
    return float((flat**2).sum() if norm == "l2" else (flat**2).mean().sqrt())


@pytest.mark.parametrize("norm", ["l2", "rms"])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_the_score_is_the_size_of_the_weights_that_leave(tiny, name, per_head, norm):
    masked = tiny.masked(name, per_head=per_head)
    search = tiny.search(MagnitudeConfig(norm=norm), masked, 0)
    for pair in masked.pairs:
        with torch.no_grad():
            expected = [plain_score(masked.model, pair, unit, norm) for unit in range(pair.size)]
        assert search.scores()[pair.name].tolist() == pytest.approx(expected)


def test_rms_is_divided_by_no_cost_and_l2_is(tiny):
    masked = tiny.masked()
    for norm, key in (("l2", lambda s, p: s / p.macs_per_unit), ("rms", lambda s, p: s)):
        search = tiny.search(MagnitudeConfig(norm=norm), masked, 0)
        ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
        # "qk" units wait for their head's first "vo" unit, whatever their score
        rows = [(masked.pairs[p], u) for p, u in ranking.order(min_units=0) if masked.pairs[p].kind != "qk"]
        keys = [float(key(ranking.scores[pair.name][u], pair)) for pair, u in rows]
        assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize("scope", ["global", "family"])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_members_fill_their_budget_and_compact_is_masked(tiny, name, scope):
    masked = tiny.masked(name)
    config = MagnitudeConfig(scope=scope)
    search = tiny.search(config, masked, 0)
    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    masks = tiny.select(config, ranking, "macs", 0.6)
    missed = 0.6 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert 0 <= missed < max(pair.macs_per_unit for pair in masked.pairs)
    tiny.assert_compact_is_masked(masked, masks)


def test_steps_change_nothing(tiny):
    masked = tiny.masked()
    search = tiny.search(MagnitudeConfig(), masked, 3)
    before = search.scores()
    tiny.run(search, tiny.batches(masked, 3))
    assert all(torch.equal(before[name], score) for name, score in search.scores().items())
    other = tiny.search(MagnitudeConfig(), masked, 3)
    other.load_state_dict(search.state_dict())
    assert other.num_steps_taken == 3


def test_settings():
    assert MagnitudeConfig(norm="rms").search_settings("ranking") == {"name": "magnitude", "norm": "rms"}
    assert MagnitudeConfig().selection_settings() == {"name": "magnitude", "scope": "global", "min_units": 1}
    for wrong in ({"norm": "l1"}, {"scope": "layer"}, {"min_units": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            MagnitudeConfig(**wrong)
