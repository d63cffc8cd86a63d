"""Budgets that no selection can serve, known before a search; against what selections from many orders do."""

import re

import pytest
import torch

from spp.dynamics.budget import OutOfReachError
from spp.dynamics.ranking import Ranking
from spp.methods.reach import refusals
from spp.methods.registry import config_class
from spp.methods.units.snapvit.config import SnapViTConfig

TAYLOR = config_class("taylor")(name="taylor")
SIZES = [round(0.9 - 0.02 * step, 2) for step in range(44)]


def reached(tiny, config, pairs, size, multiple_of, form, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {pair.name: torch.rand(pair.size, generator=generator) for pair in pairs}
    path = Ranking.from_scores(scores, pairs).rounded_to(multiple_of, form)
    try:
        tiny.select(config, path, "macs", size)
    except OutOfReachError:
        return False
    return True


@pytest.mark.parametrize(
    ("config", "per_head", "multiple_of", "form"),
    [
        (TAYLOR, False, 1, "free"),
        (config_class("taylor")(name="taylor", min_units=5), False, 1, "free"),
        (TAYLOR, False, 8, "free"),
        (TAYLOR, True, 4, "free"),
        (config_class("magnitude")(name="magnitude", min_units=3), True, 4, "free"),
        (TAYLOR, True, 1, "heads"),
        (TAYLOR, True, 8, "uniform"),
        (TAYLOR, True, 16, "deployable"),
        (SnapViTConfig(), True, 1, "free"),
        (SnapViTConfig(min_mlp_share=0.5, scope="global"), True, 1, "free"),
        (SnapViTConfig(min_head_share=0.9, scope="released"), True, 1, "free"),
    ],
)
def test_what_is_let_through_every_order_can_serve_and_what_is_not_some_cannot(
    tiny, config, per_head, multiple_of, form
):
    pairs = tiny.masked(per_head=per_head).pairs
    refused = refusals(config, pairs, "macs", SIZES, multiple_of, form)
    assert 0 < len(refused) < len(SIZES)
    assert set(refused) == {size for size in SIZES if size <= max(refused)}
    least = min(size for size in SIZES if size not in refused)
    assert all(reached(tiny, config, pairs, least, multiple_of, form, seed) for seed in range(5))
    assert not all(reached(tiny, config, pairs, min(refused), multiple_of, form, seed) for seed in range(5))


def test_a_path_is_asked_as_a_ranking_is(tiny):
    pairs = tiny.masked().pairs
    paths = refusals(config_class("spp")(name="spp"), pairs, "macs", SIZES, 8, "free")
    assert paths == refusals(TAYLOR, pairs, "macs", SIZES, 8, "free")


@pytest.mark.parametrize(
    ("config", "multiple_of", "form"),
    [(TAYLOR, 8, "free"), (TAYLOR, 8, "uniform"), (SnapViTConfig(min_mlp_share=0.7), 1, "free")],
)
def test_the_line_says_what_is_allowed_and_that_is_served(tiny, config, multiple_of, form):
    pairs = tiny.masked(per_head=True).pairs
    _, line = max(refusals(config, pairs, "macs", SIZES, multiple_of, form).items())
    found = re.fullmatch(
        r"budget\.values: 0\.\d+ cannot be reached with .*; allowed: \d+ and more, or (0\.\d+) and more of the dense "
        r"model; use .*",
        line,
    )
    assert found is not None
    share = float(found[1])
    assert refusals(config, pairs, "macs", [share], multiple_of, form) == {}
    assert refusals(config, pairs, "macs", [share - 0.01], multiple_of, form) != {}


@pytest.mark.parametrize(("multiple_of", "form", "field"), [(8, "free", "multiple_of: 8"), (1, "heads", "form: heads")])
def test_shapes_that_a_method_of_whole_heads_does_not_have(tiny, multiple_of, form, field):
    pairs = tiny.masked(per_head=True).pairs
    (line,) = set(refusals(SnapViTConfig(), pairs, "macs", [0.7], multiple_of, form).values())
    assert line.startswith(f"budget.{field} is not allowed with method=snapvit")
