"""A split Bregman iteration on the mask: min over Gamma in {0, 1} of 1/2 ||u - M||_C^2 subject to M = u Gamma.

In the coordinates u = W n with n = sqrt(diag G) and C = G / (n n^T) all rows of a linear share one quadratic. M is the
row that the mask leaves, Y (the path variable V up to its scale) adds up how far M is from u Gamma, and

    M     = argmin 1/2 ||u - M||_C^2 + <Y, M - u Gamma> + rho/2 ||M - u Gamma||^2
    Gamma = 1 on the largest 2 (M + Y / rho) u - u^2: the exact minimum over masks with the pattern's counts
    Y    += rho (M - u Gamma)

rho grows from step to step, and of all Gamma the best counts: by row where rows compete within themselves.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import ROWS_AT_ONCE, Pattern, keep_largest


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How many steps, and rho in each: rho * growth^step."""

    num_steps: int
    rho: float
    growth: float


@dataclass(frozen=True)
class BestMask:
    """The mask (out, in) bool, and the losses 1/2 ||u - u Gamma||_C^2 (out,) of its rows."""

    mask: Tensor
    losses: Tensor


def minimise_over_m(pull: Tensor, target: Tensor, y: Tensor, rho: float, values: Tensor) -> Tensor:
    """The exact minimum over M, (out, in): M (C + rho) = u C - Y + rho u Gamma.

    All of them in the basis of C's eigenvectors Q, where the division is one of numbers: X stands for X Q.

    Args:
        pull: u C.
        target: u Gamma.
        y: Y.
        rho: strength of the coupling.
        values: eigenvalues of C, (in,).
    """
    return (pull - y + rho * target) / (values + rho)


def iterate(weight: Tensor, start: Tensor, curvature: Curvature, pattern: Pattern, schedule: Schedule) -> BestMask:
    """Run the iteration.

    Args:
        weight: (out, in), of the type of the Gram matrix.
        start: (out, in) bool, the first Gamma.
        curvature: of the input.
        pattern: what every Gamma keeps to.
        schedule: steps and rho.
    """
    u = weight * curvature.norms
    if not pattern.is_by_row:
        return _iterate(u, start, curvature, pattern, schedule)
    parts = zip(torch.split(u, ROWS_AT_ONCE), torch.split(start, ROWS_AT_ONCE), strict=True)
    found = [_iterate(rows, first, curvature, pattern, schedule) for rows, first in parts]
    return BestMask(torch.cat([part.mask for part in found]), torch.cat([part.losses for part in found]))


def _iterate(u: Tensor, start: Tensor, curvature: Curvature, pattern: Pattern, schedule: Schedule) -> BestMask:
    """Two products a step: M and Y stay in the basis of the eigenvectors, and T = M + Y / rho alone comes back."""
    values, vectors = curvature.eigen
    size, turned = u.square(), u @ vectors
    pull = turned * values
    target = (u * start) @ vectors
    y, rho = torch.zeros_like(u), schedule.rho
    best = BestMask(start, _losses(turned - target, values))
    for _ in range(schedule.num_steps):
        m = minimise_over_m(pull, target, y, rho, values)
        y += rho * m
        t = (y / rho) @ vectors.T
        gamma = keep_largest(t.mul_(2).mul_(u).sub_(size), pattern)
        target = (u * gamma) @ vectors
        y -= rho * target
        rho *= schedule.growth
        best = _better(best, BestMask(gamma, _losses(turned - target, values)), pattern.is_by_row)
    return best


def _losses(turned: Tensor, values: Tensor) -> Tensor:
    """1/2 ||r||_C^2 of rows that are given as r Q."""
    return turned.square_() @ values / 2


def _better(best: BestMask, other: BestMask, by_row: bool) -> BestMask:
    if not by_row:
        # A row alone cannot be exchanged: its count depends on the other rows.
        return other if float(other.losses.sum()) < float(best.losses.sum()) else best
    wins = other.losses < best.losses
    return BestMask(torch.where(wins[:, None], other.mask, best.mask), torch.where(wins, other.losses, best.losses))
