"""Scores and masks beside their formulas, and what holds for every method that chooses single weights."""

from dataclasses import fields

import pytest
import torch
import yaml

import spp
from spp.locations import CONF
from spp.methods.weights.registry import read_weight_method, weight_config_class, weight_method_names
from spp.sparsity.config import SparsityConfig

NAMES = ["magnitude", "ri", "ria", "sparsegpt", "spp_ria", "wanda"]


def make(num_out=24, num_in=32, num_tokens=300, seed=0, dtype=torch.float32, num_batches=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tokens, num_in, generator=generator, dtype=dtype)
    x = (x @ (torch.eye(num_in, dtype=dtype) + torch.randn(num_in, num_in, generator=generator, dtype=dtype) / 6)) * (
        torch.randn(num_in, generator=generator, dtype=dtype).exp()
    )
    stats = spp.InputStats(num_in, ("norms", "gram", "batches"))
    for batch in x.chunk(num_batches):
        stats.add(batch)
    return torch.randn(num_out, num_in, generator=generator, dtype=dtype), stats, x


def largest_by_row(score, num_kept):
    mask = torch.zeros_like(score, dtype=torch.bool)
    return mask.scatter(1, score.topk(num_kept, dim=1).indices, True)


def largest_of_all(score, num_kept):
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    mask[score.flatten().topk(num_kept).indices] = True
    return mask.view(score.shape)


def test_they_are_found_by_name_and_their_files_have_their_defaults():
    assert list(weight_method_names()) == NAMES
    for name in NAMES:
        config = weight_config_class(name)()
        assert config.name == name
        assert read_weight_method(yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())) == config
        assert {field.name for field in fields(config)} == set(config.plain())


def test_an_unknown_name_is_refused_with_one_line():
    with pytest.raises(ValueError, match=r"^method\.name: 'wandas' is no method for single weights; .* mean wanda\?$"):
        read_weight_method({"name": "wandas"})
    with pytest.raises(ValueError, match=r"^method\.a: -1\.0 is not allowed; allowed: 0 or more; use 0\.5$"):
        read_weight_method({"name": "ria", "a": -1.0})
    with pytest.raises(ValueError, match=r"^method\.drive: 'path' is not allowed; allowed: reconstruction, minibatch"):
        read_weight_method({"name": "spp_ria", "drive": "path"})


def test_open_axes_are_those_of_the_publication_and_words_of_the_user_win():
    open_axes, said = SparsityConfig(), SparsityConfig(group="row", update="least_squares", shrinkage=0.2)
    published = {name: weight_config_class(name)().resolve(open_axes) for name in NAMES}
    assert {name: axes.group for name, axes in published.items()} == {
        "magnitude": "matrix", "ri": "matrix", "ria": "matrix", "sparsegpt": "block", "spp_ria": "row", "wanda": "row",
    }  # fmt: skip
    assert {name for name, axes in published.items() if axes.update != "none"} == {"sparsegpt"}
    assert all(weight_config_class(name)().resolve(said) == said for name in NAMES)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("group", ["row", "matrix", "block"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5])
def test_counts_are_exact_in_every_group(method, group, sparsity):
    weight, stats, _ = make(num_in=160)
    mask = spp.choose_mask(weight, stats, method=method, group=group, sparsity=sparsity)
    assert mask.dtype == torch.bool
    if group == "row":
        assert (mask.sum(1) == 160 - int(160 * sparsity)).all()
    else:
        parts = [mask] if group == "matrix" else [mask[:, :128], mask[:, 128:]]
        assert all(int(part.sum()) == part.numel() - int(part.numel() * sparsity + 1e-6) for part in parts)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8)])
def test_n_of_m_holds_in_every_group(method, keep, of):
    weight, stats, _ = make()
    mask = spp.choose_mask(weight, stats, method=method, keep=keep, of=of)
    assert (mask.view(24, -1, of).sum(2) == keep).all()


def test_scores_are_their_formulas():
    weight, stats, x = make(dtype=torch.float64)
    norms, size = x.norm(dim=0), weight.abs()
    relative = size / size.sum(dim=0, keepdim=True) + size / size.sum(dim=1, keepdim=True)
    expected = {"magnitude": size, "ri": relative, "wanda": size * norms, "ria": relative * norms.sqrt()}
    for method, score in expected.items():
        assert torch.equal(spp.choose_mask(weight, stats, method=method), largest_by_row(score, 16))
        by_matrix = spp.choose_mask(weight, stats, method=method, group="matrix", sparsity=0.25)
        assert torch.equal(by_matrix, largest_of_all(score, 24 * 24))


def test_wanda_with_equal_norms_is_magnitude_by_row():
    weight, _, x = make()
    stats = spp.InputStats(32)
    stats.add(x / x.norm(dim=0))
    masks = [spp.choose_mask(weight, stats, method=method) for method in ("wanda", "magnitude")]
    assert torch.equal(*masks)


@pytest.mark.parametrize("group", ["row", "matrix", "block"])
def test_ria_with_power_0_is_ri(group):
    weight, stats, _ = make()
    ria = spp.choose_mask(weight, stats, method="ria", group=group, a=0.0)
    assert torch.equal(ria, spp.choose_mask(weight, None, method="ri", group=group))
    assert not torch.equal(ria, spp.choose_mask(weight, stats, method="ria", group=group))


@pytest.mark.parametrize("method", ["wanda", "ria", "sparsegpt"])
def test_weights_of_an_input_that_is_always_zero_go_first(method):
    weight, _, x = make()
    x[:, [3, 7]] = 0
    stats = spp.InputStats(32)
    stats.add(x)
    mask = spp.choose_mask(weight, stats, method=method, group="row")
    assert not mask[:, [3, 7]].any()


def test_rows_and_columns_of_zeros_are_no_trouble_for_ri():
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    weight[2], weight[:, 5] = 0, 0
    mask = spp.choose_mask(weight, method="ri", group="matrix", sparsity=15 / 64)
    assert torch.equal(mask, weight != 0)


def test_the_sweep_gives_other_weights_than_the_dense_ones_and_least_squares_the_smaller_error():
    weight, stats, x = make()
    mask = spp.choose_mask(weight, stats, method="ria")

    def error(new):
        return float((x @ (new - weight).T).square().sum())

    obs, best = (spp.update_weights(weight, mask, stats, how=how) for how in ("obs", "least_squares"))
    assert not obs[~mask].any()
    assert not best[~mask].any()
    assert error(best) < error(obs) < error(weight * mask)
    gradient = ((best - weight) @ stats.gram)[mask]
    assert gradient.abs().max() < 1e-3 * ((weight * ~mask) @ stats.gram)[mask].abs().max()


def test_the_type_of_the_weights_comes_back():
    weight, stats, _ = make()
    mask = spp.choose_mask(weight.bfloat16(), stats, method="wanda")
    assert spp.update_weights(weight.bfloat16(), mask, stats, how="obs").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "wanda", "group": "column"}, r"^group: 'column' is not allowed; allowed: null, row, matrix, block"),
        ({"method": "wanda", "sparsity": 1.5}, r"^sparsity: 1\.5 is not allowed"),
        ({"method": "wanda", "keep": 2}, r"^keep: \(2, None\) is not allowed"),
        ({"method": "wanda", "a": 0.5}, r"^method\.a: unknown field"),
    ],
)
def test_wrong_words_are_refused_with_one_line(words, message):
    weight, stats, _ = make()
    with pytest.raises(ValueError, match=message) as caught:
        spp.choose_mask(weight, stats, **words)
    assert "\n" not in str(caught.value)


def test_a_wrong_mask_or_update_is_refused_with_one_line():
    weight, stats, _ = make()
    mask = torch.ones(24, 32, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^how: 'none' is not allowed; allowed: obs, least_squares"):
        spp.update_weights(weight, mask, stats, how="none")
    with pytest.raises(ValueError, match=r"^mask: torch\.float32 is not allowed"):
        spp.update_weights(weight, mask.float(), stats, how="obs")
    with pytest.raises(ValueError, match=r"^mask: \(24, 16\) is not allowed; allowed: the shape \(24, 32\)"):
        spp.update_weights(weight, mask[:, :16], stats, how="obs")
    with pytest.raises(ValueError, match=r"^stats: "):
        spp.update_weights(weight, mask, spp.InputStats(32), how="obs")
