import math

import pytest
import torch

from spp.dynamics.path import SolutionPath
from spp.methods.registry import method_names, read_method
from spp.methods.units.spp.config import SPPConfig
from spp.methods.units.spp.search import build_optimizer, learning_rate
from spp.structure.compact import compact


def test_the_method_is_found_by_name():
    assert "spp" in method_names()
    assert read_method({"name": "spp", "preset": "textbook"}) == SPPConfig(preset="textbook")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "sp"}, r"method\.name: 'sp' .*did you mean spp"),
        ({"name": "spp", "lam": -1}, r"method\.lam: -1 .*allowed: a positive number"),
        ({"name": "spp", "preset": "best"}, r"method\.preset: 'best' .*priced, textbook, released"),
        ({"name": "spp", "rho": -0.1}, r"method\.rho: -0\.1"),
        ({"name": "spp", "lamda": 1}, r"method\.lamda: unknown field.*did you mean method\.lam"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(values, named):
    with pytest.raises(ValueError, match=named) as caught:
        read_method(values)
    assert "\n" not in str(caught.value)


def test_what_chooses_a_member_does_not_shape_the_path():
    one, other = SPPConfig(score="V", min_units=4), SPPConfig(score="entry", min_units=1)
    assert one.search_settings("path") == other.search_settings("path")
    assert one.selection_settings() != other.selection_settings()
    assert SPPConfig.read({**one.search_settings("path"), **one.selection_settings()}, "method") == one


def test_only_the_released_preset_lowers_its_step_size():
    released = SPPConfig(preset="released")
    rates = [learning_rate(released, 1e-3, epoch, 300) for epoch in range(300)]
    expected = [1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * e / 300)) for e in range(300)]
    assert rates == pytest.approx(expected)
    assert learning_rate(SPPConfig(), 0.03, 7, 10) == 0.03


def searched_path(masked, num_steps=12):
    """A path on which only some units have entered, at few different times."""
    dynamics = build_optimizer(SPPConfig(eta=0.3), masked.masks, num_steps)
    generator = torch.Generator().manual_seed(0)
    slopes = {name: torch.randn(len(mask), generator=generator) for name, mask in masked.masks.items()}
    for step in range(num_steps):
        for name, mask in masked.masks.items():
            mask.grad = slopes[name].clone()
        dynamics.step()
        if step % 4 == 0:
            dynamics.sample_occupancy()
    return SolutionPath.from_optimizer(dynamics, masked.pairs)


def test_the_released_selection_adds_what_ties_with_the_last_unit_and_nothing_else(tiny):
    path = searched_path(tiny.masked())
    mended, quirky = (SPPConfig(score="S", scope="family", released_quirks=quirks) for quirks in (False, True))
    num_added = 0
    for size in (0.8, 0.6, 0.4):
        off, on = (tiny.select(config, path, "units", size) for config in (mended, quirky))
        assert all(
            torch.equal(off[name], mask) for name, mask in path.masks(units=size, scope="family", score="S").items()
        )
        for family in ("attn", "mlp"):
            names = [name for name in off if family in name]
            counts, was_kept, is_kept = (torch.cat([values[name] for name in names]) for values in (path.S, off, on))
            added = is_kept & ~was_kept
            assert (was_kept <= is_kept).all()
            assert len(counts[added].unique()) <= 1
            assert not ((counts == counts[added].max()) & ~is_kept).any() if added.any() else True
            num_added += int(added.sum())
    assert num_added > 0


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_the_released_scale_is_all_that_changes_in_a_member(tiny, name, per_head):
    masked = tiny.masked(name, per_head=per_head)
    masks = {}
    for index, pair in enumerate(masked.pairs):
        heads = torch.zeros(
            pair.num_heads if pair.per_head else 1, pair.size // (pair.num_heads if pair.per_head else 1)
        )
        heads[:, : 1 + index % 3] = 1
        masks[pair.name] = heads.flatten().bool()
    off, on = compact(masked.model, masks).eval(), compact(masked.model, masks).eval()
    assert tiny.finish_member(SPPConfig(), off, 0) == {}
    assert tiny.finish_member(SPPConfig(released_quirks=True), on, 0) == {"is_scaled_by_kept_width": True}
    assert all(torch.equal(value, on.state_dict()[key]) for key, value in off.state_dict().items())
    images = tiny.batches(masked, 1, seed=5)[0][0]
    with torch.no_grad():
        masked.set_masks(masks)
        torch.testing.assert_close(off(images), masked(images), rtol=1e-5, atol=1e-5)
        # Queries that are longer by sqrt(width / kept width) make up for the scale of the full head.
        longer = {}
        for pair in masked.pairs:
            num_heads = pair.num_heads if pair.per_head else 1
            widest = masks[pair.name].view(num_heads, -1).sum(1).max()
            longer[pair.name] = masks[pair.name] * ((pair.size / num_heads / widest) ** 0.5 if pair.kind == "qk" else 1)
        masked.set_masks(longer)
        torch.testing.assert_close(on(images), masked(images), rtol=1e-5, atol=1e-5)
        assert (on(images) - off(images)).abs().max() > 1e-3


def test_a_scale_by_no_width_is_refused_in_one_line(tiny):
    model = tiny.build()
    none = torch.zeros(8, dtype=torch.bool)
    quirky = SPPConfig(released_quirks=True)
    with pytest.raises(
        ValueError, match=r"^masks: blocks\.1\.attn without a query-key unit .* method\.min_units=1"
    ) as caught:
        tiny.finish_member(quirky, compact(model, {"blocks.1.attn.qk": none}), 0)
    assert "\n" not in str(caught.value)
    without_heads = compact(model, {"blocks.1.attn.qk": none, "blocks.1.attn.vo": none})
    assert tiny.finish_member(quirky, without_heads, 0) == {"is_scaled_by_kept_width": True}
