"""SPP refined by elimination, against the path alone, and against `obs` on the compact network."""

import copy
import itertools

import pytest
import torch

from spp.dynamics.path import SolutionPath
from spp.dynamics.ranking import open_path
from spp.methods.units.obs.config import OBSConfig
from spp.methods.units.spp.config import SPPConfig
from spp.structure.compact import compact
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.repair import repair

NUM_PATH_STEPS = 20
NUM_KEEPING_STEPS = 4
"""256 samples in batches of 64; the batches here are smaller, which the search does not know."""


def searched(tiny, config, masked, batches):
    masked.model.requires_grad_(False)
    search = tiny.search(config, masked, NUM_PATH_STEPS, batch_size=64)
    tiny.run(search, batches[: search.num_steps])
    return search


def num_steps(config):
    return NUM_PATH_STEPS + NUM_KEEPING_STEPS + 16 * (config.refine_cuts or 8)


def plain(config):
    """The same without refining."""
    return SPPConfig(lam=config.lam, preset=config.preset, score=config.score, scope=config.scope)


CONFIGS = [
    SPPConfig(lam=0.2, refine="obs", refine_cuts=2),
    SPPConfig(lam=0.2, refine="obs", refine_from=0.75, refine_cuts=1, score="V"),
    SPPConfig(lam=0.2, refine="obs", refine_cuts=1, preset="textbook"),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("name", "per_head"), [("vit", False), ("swin", True)])
def test_above_the_place_it_is_the_path_and_all_members_are_nested(tiny, tmp_path, config, name, per_head):
    batches = tiny.batches(tiny.masked(name), num_steps(config))
    refined = searched(tiny, config, tiny.masked(name, per_head=per_head), batches)
    assert refined.num_steps == len(batches)
    alone = searched(tiny, plain(config), tiny.masked(name, per_head=per_head), batches)
    path, expected = refined.order({"seed": 1}), alone.order({"seed": 1})
    for kind in ("entry", "V", "S"):
        assert all(torch.equal(values, getattr(expected, kind)[name]) for name, values in getattr(path, kind).items())
    path.save(tmp_path)
    path = open_path(tmp_path)
    assert isinstance(path, SolutionPath)
    place = config.refine_from or 0.6
    larger = None
    num_other = 0
    for size in (1.0, 0.9, 0.8, place, 0.95 * place, 0.9 * place, 0.85 * place):
        masks, wanted = (tiny.select(config, each, "macs", size) for each in (path, expected))
        is_same = all(torch.equal(mask, wanted[name]) for name, mask in masks.items())
        assert is_same or size < place
        num_other += not is_same
        assert larger is None or all(bool((mask <= larger[name]).all()) for name, mask in masks.items())
        larger = masks
    assert num_other > 0


def test_below_the_place_it_is_obs_on_the_compact_and_repaired_network(tiny):
    config = CONFIGS[1]
    batches = tiny.batches(tiny.masked(), num_steps(config))
    path = searched(tiny, config, tiny.masked(), batches).order({})

    alone = searched(tiny, plain(config), tiny.masked(), batches).order({})
    masks = tiny.select(config, alone, "macs", 0.75)
    samples = [images for images, _ in batches[NUM_PATH_STEPS : NUM_PATH_STEPS + NUM_KEEPING_STEPS]]
    small = repair(compact(tiny.build(), masks), tiny.build(), samples)
    small.requires_grad_(False)
    search = tiny.search(OBSConfig(), MaskedModel(small, find_pairs(small)), 16)
    tiny.run(search, batches[NUM_PATH_STEPS + NUM_KEEPING_STEPS :])
    ranking = search.order({})
    numbers = [mask.nonzero().flatten() for mask in masks.values()]
    expected = [(pair, int(numbers[pair][unit])) for pair, unit in ranking.order().tolist()]
    found = [tuple(row) for row in path.order(score="V").tolist()]
    assert found[: len(expected)] == expected


@pytest.mark.parametrize("stop", [10, 22, 24, 50])
def test_a_search_goes_on_where_it_was(tiny, tmp_path, stop):
    config = CONFIGS[0]
    batches = tiny.batches(tiny.masked(), num_steps(config))
    whole = searched(tiny, config, tiny.masked(), batches)
    first = searched(tiny, config, tiny.masked(), batches[:stop])
    torch.save([first.masked.state_dict(), first.state_dict()], tmp_path / "checkpoint")
    weights, state = torch.load(tmp_path / "checkpoint", weights_only=True)
    rest = tiny.search(config, tiny.masked(), NUM_PATH_STEPS, batch_size=64)
    rest.masked.model.requires_grad_(False)
    rest.masked.load_state_dict(copy.deepcopy(weights))
    rest.load_state_dict(state)
    tiny.run(rest, batches[stop:])
    path, expected = rest.order({}), whole.order({})
    assert all(torch.equal(path.rank[name], rank) for name, rank in expected.rank.items())


def test_only_the_order_that_was_refined_can_be_had(tiny):
    config = CONFIGS[1]
    path = searched(tiny, config, tiny.masked(), tiny.batches(tiny.masked(), num_steps(config))).order({})
    assert path.meta["refined"] == {"scope": "global", "score": "V", "min_units": 1, "by": "obs", "from": 0.75}
    for choice, named in (
        ({}, r"^score: entry is not allowed: .*allowed: V;"),
        ({"score": "V", "scope": "family"}, r"^scope: family .*allowed: global;"),
        ({"score": "V", "min_units": 2}, r"^min_units: 2 .*allowed: 1;"),
    ):
        with pytest.raises(ValueError, match=named) as caught:
            path.masks(macs=0.5, **choice)
        assert "\n" not in str(caught.value)
    alone = searched(tiny, plain(config), tiny.masked(), tiny.batches(tiny.masked(), NUM_PATH_STEPS)).order({})
    with pytest.raises(ValueError, match=r"^best: these are not the first 3 units"):
        alone.refined(torch.tensor([0, 1, 0]))


def test_what_the_network_is_cut_by_is_part_of_the_search():
    choices = [
        SPPConfig(refine="obs", score=score, min_units=units) for score, units in itertools.product("VS", (1, 2))
    ]
    searches = [str(choice.search_settings("path")) for choice in choices]
    assert len(set(searches)) == 4
    settings = SPPConfig().search_settings("path")
    assert not {"refine", "refine_from", "refine_cuts", "score", "scope", "min_units"} & set(settings)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"refine": "gn"}, r"^refine: 'gn' .*allowed: obs, null"),
        ({"refine_from": 0.5}, r"^refine_from: 0\.5 .*null with refine=null"),
        ({"refine_cuts": 3}, r"^refine_cuts: 3 .*null with refine=null"),
        ({"refine": "obs", "refine_from": 0.1}, r"^refine_from: 0\.1 .*between 0\.1"),
        ({"refine": "obs", "refine_from": 1.0}, r"^refine_from: 1\.0 .*and 1"),
        ({"refine": "obs", "refine_cuts": 0}, r"^refine_cuts: 0 .*1 or more"),
        ({"refine": "obs", "released_quirks": True}, r"^released_quirks: True .*false with refine=obs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values, named):
    with pytest.raises(ValueError, match=named) as caught:
        SPPConfig(**values)
    assert "\n" not in str(caught.value)


def test_a_place_out_of_reach_is_refused_before_the_search(tiny):
    with pytest.raises(ValueError, match=r"^method\.refine_from: 0\.11 cannot be reached") as caught:
        tiny.search(SPPConfig(refine="obs", refine_from=0.11, min_units=8), tiny.masked(), 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "num_repairs"), [(CONFIGS[0], 2), (SPPConfig(refine="obs"), 8), (OBSConfig(num_cuts=3), 2)]
)
def test_the_expected_cost_has_the_steps_and_the_repairs_that_there_are(tiny, monkeypatch, config, num_repairs):
    repairs = []
    monkeypatch.setattr("spp.methods.elimination.search.repair_in_place", lambda *arguments: repairs.append(arguments))
    batches = tiny.batches(tiny.masked(), num_steps(config) if isinstance(config, SPPConfig) else NUM_PATH_STEPS)
    search = searched(tiny, config, tiny.masked(), batches)
    cost = config.search_cost(NUM_PATH_STEPS, batch_size=64)
    assert cost.num_steps == search.num_steps == len(batches)
    assert len(repairs) == num_repairs
    assert cost.num_repaired == num_repairs * 256
