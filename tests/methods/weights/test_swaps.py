"""Swaps of single weights beside brute force."""

import pytest
import torch

from spp.methods.weights.spp_ria.swaps import swap_weights
from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import Pattern, keep_largest


def make(num_out=12, num_in=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, num_in, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(num_in, num_in, generator=generator, dtype=torch.float64)
    return torch.randn(num_out, num_in, generator=generator, dtype=torch.float64), x


def loss(weight, mask, x):
    return float((torch.atleast_2d(weight * ~mask) @ x.T).square().sum())


def losses_after_each_swap(weight, mask, x, of):
    """The loss of one row after every swap of a kept and a removed weight of one group."""
    size = of or len(mask)
    for goes in mask.nonzero()[:, 0].tolist():
        for comes in (~mask).nonzero()[:, 0].tolist():
            if goes // size == comes // size:
                swapped = mask.clone()
                swapped[goes], swapped[comes] = False, True
                yield loss(weight, swapped, x)


@pytest.mark.parametrize(
    "pattern", [Pattern(sparsity=0.5), Pattern(sparsity=0.75, group="matrix"), Pattern(keep=2, of=4)]
)
@pytest.mark.parametrize("seed", range(4))
def test_each_swap_lowers_the_loss_and_keeps_the_counts(pattern, seed):
    weight, x = make(seed=seed)
    start = keep_largest(weight.abs(), pattern)
    curvature = Curvature(x.T @ x)
    before, previous = start, [loss(row, mask, x) for row, mask in zip(weight, start, strict=True)]
    for _ in range(4):
        mask = swap_weights(weight, before, curvature, pattern, max_swaps=1)
        now = [loss(row, kept, x) for row, kept in zip(weight, mask, strict=True)]
        for row, (new, old) in enumerate(zip(now, previous, strict=True)):
            moved = int((mask[row] != before[row]).sum())
            assert moved == 0 if new == old else (moved == 2 and new < old)
        size = pattern.of or 16
        assert torch.equal(mask.view(12, -1, size).sum(2), start.view(12, -1, size).sum(2))
        before, previous = mask, now


@pytest.mark.parametrize("seed", range(4))
def test_within_groups_the_end_is_one_that_no_swap_makes_better_and_each_takes_the_best(seed):
    weight, x = make(seed=seed)
    curvature = Curvature(x.T @ x)
    start = keep_largest(weight.abs(), Pattern(keep=2, of=4))
    one = swap_weights(weight, start, curvature, Pattern(keep=2, of=4), max_swaps=1)
    end = swap_weights(weight, start, curvature, Pattern(keep=2, of=4), max_swaps=1000)
    for row in range(12):
        best = min(losses_after_each_swap(weight[row], start[row], x, 4))
        assert loss(weight[row], one[row], x) == pytest.approx(min(best, loss(weight[row], start[row], x)))
        reached = loss(weight[row], end[row], x)
        assert min(losses_after_each_swap(weight[row], end[row], x, 4)) >= reached * (1 - 1e-4)


def test_within_rows_the_end_is_close_to_one_that_no_swap_makes_better():
    weight, x = make()
    end = swap_weights(weight, keep_largest(weight.abs(), Pattern()), Curvature(x.T @ x), Pattern(), max_swaps=1000)
    again = [
        min(losses_after_each_swap(weight[row], end[row], x, None)) / loss(weight[row], end[row], x)
        for row in range(12)
    ]
    assert min(again) > 0.8
    assert sum(ratio >= 1 - 1e-4 for ratio in again) >= 8


def test_weights_of_a_block_stay_in_it():
    weight, x = make()
    pattern = Pattern(group="block", block_size=8)
    start = keep_largest(weight.abs(), pattern)
    end = swap_weights(weight, start, Curvature(x.T @ x), pattern, max_swaps=1000)
    assert torch.equal(end.view(12, 2, 8).sum(2), start.view(12, 2, 8).sum(2))
    assert loss(weight, end, x) < loss(weight, start, x)
