"""SparseGPT's sweep beside ten lines that follow its paper and release column by column."""

import pytest
import torch

from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import Pattern, keep_largest
from spp.sparsity.sweep import choose_in_sweep, update_in_sweep


def published(weight, gram, mask=None, sparsity=0.5, ratio=None, block_size=128, damping=0.01):
    """Frantar and Alistarh 2023, algorithm 1: `mask` given, or chosen on the way."""
    hessian = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    w, kept = weight.clone(), torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    for j in range(w.shape[1]):
        if mask is None and (every := block_size if ratio is None else ratio[1]) and j % every == 0:
            score = (w[:, j : j + every] / upper.diagonal()[j : j + every]).square()
            if ratio is None:
                order = score.flatten().sort(stable=True).indices[: int(score.numel() * sparsity)]
                block = torch.ones(score.numel(), dtype=torch.bool)
                block[order] = False
                kept[:, j : j + every] = block.view(score.shape)
            else:
                kept[:, j : j + every] = score.argsort(1).argsort(1) >= ratio[1] - ratio[0]
        error = torch.where(kept[:, j], 0.0, w[:, j]) / upper[j, j]
        w[:, j:] -= error[:, None] * upper[j, j:]
        w[:, j] *= kept[:, j]
    return kept, w


@pytest.mark.parametrize("num_in", [12, 300])
def test_the_two_level_sweep_is_the_published_one_for_a_given_mask(linear, num_in):
    fc = linear(20, num_in, 400)
    mask = keep_largest(fc.weight.abs(), Pattern(sparsity=0.6))
    _, expected = published(fc.weight, fc.gram, mask)
    updated = update_in_sweep(fc.weight, mask, Curvature(fc.gram).inverse_factor)
    torch.testing.assert_close(updated, expected, rtol=1e-7, atol=1e-9)
    assert not updated[~mask].any()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (Pattern(sparsity=0.5, group="block"), {}),
        (Pattern(sparsity=0.7, group="block", block_size=32), {"sparsity": 0.7, "block_size": 32}),
        (Pattern(keep=2, of=4), {"ratio": (2, 4)}),
        (Pattern(keep=1, of=3), {"ratio": (1, 3)}),
        (Pattern(keep=4, of=32), {"ratio": (4, 32)}),
    ],
)
def test_choosing_on_the_way_is_as_published(linear, pattern, words):
    fc = linear(16, 288, 400)
    kept, expected = published(fc.weight, fc.gram, **words)
    swept = choose_in_sweep(fc.weight, Curvature(fc.gram).inverse_factor, pattern)
    assert torch.equal(swept.mask, kept)
    torch.testing.assert_close(swept.weight, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_other_groups_are_chosen_before_the_sweep(linear, group):
    fc = linear()
    curvature = Curvature(fc.gram)
    pattern = Pattern(sparsity=0.5, group=group)
    swept = choose_in_sweep(fc.weight, curvature.inverse_factor, pattern)
    score = (fc.weight / curvature.inverse_factor.diagonal()).square()
    assert torch.equal(swept.mask, keep_largest(score, pattern))
    torch.testing.assert_close(swept.weight, published(fc.weight, fc.gram, swept.mask)[1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "pattern", [Pattern(sparsity=0.5, group="block"), Pattern(sparsity=0.8, group="block"), Pattern(keep=2, of=4)]
)
def test_the_loss_is_never_above_that_of_the_mask_alone(linear, pattern, seed):
    fc = linear(seed=seed)
    swept = choose_in_sweep(fc.weight, Curvature(fc.gram).inverse_factor, pattern)
    assert fc.loss(swept.weight) <= fc.loss(fc.weight * swept.mask)
