"""Swaps of single weights: a kept and a removed weight of a row change places as long as the loss falls.

With u, C as in mask_bregman.py, r = u (1 - Gamma) and g = r C, the loss 1/2 r C r^T changes by u_i g_i + u_i^2 / 2 when
the kept i goes, by -u_j g_j + u_j^2 / 2 when the removed j comes back, and by -u_i u_j C_ij more when both happen. All
rows swap at once. Counts of rows, and of groups of N:M, stay as they are.
"""

import torch
from torch import Tensor

from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import Pattern

_MIN_GAIN = 1e-6
"""Share of a row's loss below which a swap is rounding."""
_ROWS_AT_ONCE = 256
"""So that what belongs to some rows stays in a cache."""


def swap_weights(weight: Tensor, mask: Tensor, curvature: Curvature, pattern: Pattern, max_swaps: int) -> Tensor:
    """A mask that no swap tried makes better, or that has had as many swaps per row as allowed.

    Args:
        weight: (out, in), of the type of the Gram matrix.
        mask: (out, in) bool, the start.
        curvature: of the input.
        pattern: whose counts stay: weights change places within rows, of a block or of a group of N:M.
        max_swaps: per row, and block.

    Returns: (out, in) bool.
    """
    size = weight.shape[1]
    width = pattern.block_size if pattern.ratio is None and pattern.group == "block" else size
    places = [slice(start, min(start + width, size)) for start in range(0, size, width)]
    swapped = []
    for u, part in zip(
        torch.split(weight * curvature.norms, _ROWS_AT_ONCE), torch.split(mask.clone(), _ROWS_AT_ONCE), strict=True
    ):
        for columns in places:
            _swap_rows(u, part, curvature.correlation, pattern.of, columns, max_swaps)
        swapped.append(part)
    return torch.cat(swapped)


def _swap_rows(u: Tensor, mask: Tensor, correlation: Tensor, of: int | None, columns: slice, max_swaps: int) -> None:
    """Swap in some columns of `mask`, in place."""
    gradient = (u * ~mask) @ correlation
    losses = (gradient * (u * ~mask)).sum(1) / 2
    gradient, within = gradient[:, columns], correlation[columns, columns]
    u, mask = u[:, columns], mask[:, columns]
    rows = torch.arange(len(u), device=u.device)
    for _ in range(max_swaps):
        # Rows that are done leave.
        now = (u[rows], mask[rows], gradient[rows], within)
        goes, comes, change = _best_of_row(*now) if of is None else _best_of_groups(*now, of)
        is_better = change < -_MIN_GAIN * losses[rows]
        rows, goes, comes = rows[is_better], goes[is_better], comes[is_better]
        if len(rows) == 0:
            break
        losses[rows] += change[is_better]
        mask[rows, goes], mask[rows, comes] = False, True
        gradient[rows] += u[rows, goes][:, None] * within[goes] - u[rows, comes][:, None] * within[comes]


def _costs(u: Tensor, mask: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the loss changes when a kept weight goes, and when a removed one comes back; else infinity."""
    linear, square = u * gradient, u.square() / 2
    goes = (linear + square).masked_fill(~mask, torch.inf)
    comes = (square - linear).masked_fill(mask, torch.inf)
    return goes, comes


def _best_of_row(u: Tensor, mask: Tensor, gradient: Tensor, correlation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The better of two: the cheapest to go with its best partner, and the cheapest to come back with its own."""
    cost_goes, cost_comes = _costs(u, mask, gradient)
    goes, comes = cost_goes.argmin(1, keepdim=True), cost_comes.argmin(1, keepdim=True)
    partners = cost_comes - u.gather(1, goes) * u * correlation[goes[:, 0]]
    change_first, partner_comes = partners.min(1, keepdim=True)
    change_first = change_first + cost_goes.gather(1, goes)
    partners = cost_goes - u.gather(1, comes) * u * correlation[comes[:, 0]]
    change_second, partner_goes = partners.min(1, keepdim=True)
    change_second = change_second + cost_comes.gather(1, comes)
    first_wins = change_first <= change_second
    goes, comes = torch.where(first_wins, goes, partner_goes), torch.where(first_wins, partner_comes, comes)
    return goes[:, 0], comes[:, 0], torch.minimum(change_first, change_second)[:, 0]


def _best_of_groups(
    u: Tensor, mask: Tensor, gradient: Tensor, correlation: Tensor, of: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all pairs of all groups."""
    cost_goes, cost_comes = _costs(u, mask, gradient)
    groups = torch.arange(u.shape[1], device=u.device).view(-1, of)
    within = correlation[groups[:, :, None], groups[:, None, :]]
    parts = u.reshape(len(u), -1, of)
    change = cost_goes.view(parts.shape)[..., :, None] + cost_comes.view(parts.shape)[..., None, :]
    change = change - parts[..., :, None] * parts[..., None, :] * within
    best, pair = change.flatten(1).min(1)
    group, goes, comes = pair // of**2, pair % of**2 // of, pair % of
    return group * of + goes, group * of + comes, best
