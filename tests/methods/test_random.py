import pytest
import torch

from spp.dynamics.budget import join
from spp.dynamics.ranking import Ranking
from spp.methods.units.random.config import RandomConfig


def draw(tiny, masked, number=0, seed=0, num_steps=0):
    search = tiny.search(RandomConfig(seed=number), masked, num_steps, seed=seed)
    return search, join(masked.pairs, search.scores())


def test_the_draw_depends_on_the_seeds_alone(tiny):
    masked, other = tiny.masked(seed=0), tiny.masked(seed=1)
    search, scores = draw(tiny, masked, num_steps=2)
    torch.manual_seed(7)
    tiny.run(search, tiny.batches(masked, 2))
    assert torch.equal(join(masked.pairs, search.scores()), scores)
    assert torch.equal(draw(tiny, other)[1], scores)
    draws = [draw(tiny, masked, number, seed)[1] for number in range(3) for seed in range(3)]
    assert len({tuple(d.tolist()) for d in draws}) == 9


def test_dear_units_are_as_likely_to_stay_as_cheap_ones(tiny):
    masked = tiny.masked()
    shares = {"mlp": [], "attention": []}
    for seed in range(40):
        search, _ = draw(tiny, masked, seed=seed)
        ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
        kept = ranking.masks(units=0.5, min_units=0)
        for pair in masked.pairs:
            shares["mlp" if pair.kind == "mlp" else "attention"].append(float(kept[pair.name].double().mean()))
    assert sum(shares["mlp"]) / len(shares["mlp"]) == pytest.approx(0.5, abs=0.05)
    assert sum(shares["attention"]) / len(shares["attention"]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("scope", ["global", "family"])
@pytest.mark.parametrize("seed", range(3))
def test_members_fill_their_budget(tiny, seed, scope):
    masked = tiny.masked("swin")
    search, _ = draw(tiny, masked, seed=seed)
    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    masks = tiny.select(RandomConfig(scope=scope), ranking, "macs", 0.6)
    missed = 0.6 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert 0 <= missed < max(pair.macs_per_unit for pair in masked.pairs)


def test_compact_is_masked(tiny):
    for name in ("vit", "swin"):
        masked = tiny.masked(name)
        search, _ = draw(tiny, masked, seed=3)
        ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
        tiny.assert_compact_is_masked(masked, tiny.select(RandomConfig(), ranking, "params", 0.7))


def test_settings():
    assert RandomConfig(seed=2, min_units=3).search_settings("ranking") == {"name": "random", "seed": 2}
    assert RandomConfig(seed=2, min_units=3).selection_settings() == {
        "name": "random",
        "scope": "global",
        "min_units": 3,
    }
