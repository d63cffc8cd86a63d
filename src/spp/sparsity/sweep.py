"""SparseGPT's sweep (Frantar and Alistarh 2023): columns from left to right, the error of each spread over the rest.

With U the upper factor of H^-1 = U^T U, column j with weights w and kept part q leaves e = (w - q) / U_jj, and all
columns k > j change by -e U_jk. Here it runs on W^T, in which a column is contiguous, and in blocks of two sizes:
within an inner block column by column, from there on by matrix products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.sparsity.config import BLOCK_SIZE
from spp.sparsity.pattern import Pattern, keep_largest

_INNER_SIZE = 16
"""Columns that are swept one by one before a matrix product."""


@dataclass(frozen=True)
class Swept:
    """The mask (out, in) bool and the updated weights (out, in), zeros where the mask is False."""

    mask: Tensor
    weight: Tensor


def update_in_sweep(weight: Tensor, mask: Tensor, factor: Tensor) -> Tensor:
    """The weights after a sweep with a given mask.

    Args:
        weight: (out, in), of the type of `factor`.
        mask: (out, in) bool, True where the weight stays.
        factor: U, (in, in).

    Returns: (out, in), zeros where not mask.
    """
    kept = mask.T.contiguous()
    return _sweep(weight, factor, kept, BLOCK_SIZE, _INNER_SIZE).T.contiguous()


def choose_in_sweep(weight: Tensor, factor: Tensor, pattern: Pattern) -> Swept:
    """SparseGPT as published: the mask is chosen as the sweep comes along, by w^2 / U_jj^2 of the updated weights.

    Args:
        weight: (out, in), of the type of `factor`.
        factor: U, (in, in).
        pattern: of group block, with an exact count in every block of all rows; or N:M. Other groups are chosen at
            once, from the weights as they are before the sweep.
    """
    diagonal = factor.diagonal()
    if pattern.ratio is None and pattern.group != "block":
        mask = keep_largest((weight / diagonal).square(), pattern)
        return Swept(mask, update_in_sweep(weight, mask, factor))
    # An inner block holds whole groups, so that all of a group is up to date when its mask is chosen.
    of = pattern.of
    inner = min(_INNER_SIZE, pattern.block_size) if of is None else of * max(1, _INNER_SIZE // of)
    outer = inner * max(1, pattern.block_size // inner)
    kept = torch.empty(weight.shape[1], weight.shape[0], dtype=torch.bool, device=weight.device)
    within = pattern if of is not None else Pattern(sparsity=pattern.sparsity, group="matrix")

    def choose(columns: slice, swept: Tensor) -> None:
        score = (swept[columns] / diagonal[columns, None]).square().T
        kept[columns] = keep_largest(score, within).T

    updated = _sweep(weight, factor, kept, outer, inner, choose, outer if of is None else of)
    return Swept(kept.T.contiguous(), updated.T.contiguous())


def _sweep(
    weight: Tensor,
    factor: Tensor,
    kept: Tensor,
    outer_size: int,
    inner_size: int,
    choose: Callable[[slice, Tensor], None] | None = None,
    choose_every: int = 1,
) -> Tensor:
    """W^T after the sweep; `choose` fills in the next `choose_every` rows of `kept` (in, out) when they are reached."""
    swept = weight.T.clone(memory_format=torch.contiguous_format)
    size = len(swept)
    diagonal = factor.diagonal().tolist()
    for start in range(0, size, outer_size):
        stop = min(start + outer_size, size)
        errors = torch.empty(stop - start, swept.shape[1], dtype=swept.dtype, device=swept.device)
        for first in range(start, stop, inner_size):
            last = min(first + inner_size, stop)
            for j in range(first, last):
                if choose is not None and j % choose_every == 0:
                    choose(slice(j, min(j + choose_every, size)), swept)
                error = errors[j - start]
                torch.mul(swept[j], ~kept[j], out=error)
                error /= diagonal[j]
                swept[j] *= kept[j]
                if j + 1 < last:
                    swept[j + 1 : last].addr_(factor[j, j + 1 : last], error, alpha=-1)
            done = errors[first - start : last - start]
            if last < stop:
                swept[last:stop].addmm_(factor[first:last, last:stop].T, done, alpha=-1)
        if stop < size:
            swept[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return swept
