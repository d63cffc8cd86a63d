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
from spp.sparsity.pattern import Pattern, keep_largest


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


def minimise_over_m(pull: Tensor, target: Tensor, y: Tensor, rho: float, curvature: Curvature) -> Tensor:
    """The exact minimum over M, (out, in): M (C + rho) = u C - Y + rho u Gamma.

    Args:
        pull: u C.
        target: u Gamma.
        y: Y.
        rho: strength of the coupling.
        curvature: of the input.
    """
    values, vectors = curvature.eigen
    return (((pull - y + rho * target) @ vectors) / (values + rho)) @ vectors.T


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
    pull = u @ curvature.correlation
    gamma, y, rho = start, torch.zeros_like(u), schedule.rho
    best = BestMask(start, mask_losses(u, start, curvature))
    by_row = pattern.ratio is not None or pattern.group == "row"
    for _ in range(schedule.num_steps):
        m = minimise_over_m(pull, u * gamma, y, rho, curvature)
        gamma = keep_largest(2 * (m + y / rho) * u - u.square(), pattern)
        y += rho * (m - u * gamma)
        rho *= schedule.growth
        best = _better(best, BestMask(gamma, mask_losses(u, gamma, curvature)), by_row)
    return best


def mask_losses(u: Tensor, mask: Tensor, curvature: Curvature) -> Tensor:
    """1/2 ||u - u Gamma||_C^2 of every row, (out,)."""
    removed = u * ~mask
    return ((removed @ curvature.correlation) * removed).sum(1) / 2


def _better(best: BestMask, other: BestMask, by_row: bool) -> BestMask:
    if not by_row:
        # A row alone cannot be exchanged: its count depends on the other rows.
        return other if float(other.losses.sum()) < float(best.losses.sum()) else best
    wins = other.losses < best.losses
    return BestMask(torch.where(wins[:, None], other.mask, best.mask), torch.where(wins, other.losses, best.losses))
