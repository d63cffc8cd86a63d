"""Swaps of single weights: a kept and a removed weight of a row change places as long as the loss falls.

With u, C as in mask_bregman.py, r = u (1 - Gamma) and g = r C, the loss 1/2 r C r^T changes by u_i g_i + u_i^2 / 2 when
the kept i goes, by -u_j g_j + u_j^2 / 2 when the removed j comes back, and by -u_i u_j C_ij more when both happen. All
rows swap at once. Counts of rows, and of groups of N:M, stay as they are.
"""

import torch
from torch import Tensor

from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import ROWS_AT_ONCE, Pattern

_MIN_GAIN = 1e-6
"""Share of a row's loss below which a swap is rounding."""
_SWAPS_BETWEEN_LEAVING = 8
"""Swaps after which rows that are done leave."""


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
        torch.split(weight * curvature.norms, ROWS_AT_ONCE), torch.split(mask.clone(), ROWS_AT_ONCE), strict=True
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
    u, swapped = u[:, columns], mask[:, columns].clone()
    rows = torch.arange(len(u), device=u.device)
    cross = None if of is None else _products_within_groups(u, within, of)
    is_better = torch.ones_like(rows, dtype=torch.bool)
    for number in range(max_swaps):
        if number % _SWAPS_BETWEEN_LEAVING == 0 and not bool(is_better.all()):
            mask[rows, columns] = swapped
            rows, u, swapped, gradient = rows[is_better], u[is_better], swapped[is_better], gradient[is_better]
            losses, cross = losses[is_better], None if cross is None else cross[is_better]
        costs = _costs(u, swapped, gradient)
        goes, comes, change = _best_of_row(*costs, u, within) if cross is None else _best_of_groups(*costs, cross)
        is_better = change < -_MIN_GAIN * losses
        better = is_better.nonzero()[:, 0]
        if len(better) == 0:
            break
        goes, comes = goes[better], comes[better]
        losses[better] += change[better]
        swapped[better, goes], swapped[better, comes] = False, True
        gradient[better] += u[better, goes][:, None] * within[goes] - u[better, comes][:, None] * within[comes]
    mask[rows, columns] = swapped


def _costs(u: Tensor, mask: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the loss changes when a kept weight goes, and when a removed one comes back; else infinity."""
    linear, square = u * gradient, u.square() / 2
    goes = (linear + square).masked_fill(~mask, torch.inf)
    comes = (square - linear).masked_fill(mask, torch.inf)
    return goes, comes


def _best_of_row(cost_goes: Tensor, cost_comes: Tensor, u: Tensor, within: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The better of two: the cheapest to go with its best partner, and the cheapest to come back with its own."""
    goes, comes = cost_goes.argmin(1, keepdim=True), cost_comes.argmin(1, keepdim=True)
    partners = cost_comes - u.gather(1, goes) * u * within[goes[:, 0]]
    change_first, partner_comes = partners.min(1, keepdim=True)
    change_first = change_first + cost_goes.gather(1, goes)
    partners = cost_goes - u.gather(1, comes) * u * within[comes[:, 0]]
    change_second, partner_goes = partners.min(1, keepdim=True)
    change_second = change_second + cost_comes.gather(1, comes)
    first_wins = change_first <= change_second
    goes, comes = torch.where(first_wins, goes, partner_goes), torch.where(first_wins, partner_comes, comes)
    return goes[:, 0], comes[:, 0], torch.minimum(change_first, change_second)[:, 0]


def _products_within_groups(u: Tensor, within: Tensor, of: int) -> Tensor:
    """u_i u_j C_ij for all pairs of each group, (rows, groups, of, of)."""
    groups = torch.arange(u.shape[1], device=u.device).view(-1, of)
    parts = u.reshape(len(u), -1, of)
    return parts[..., :, None] * parts[..., None, :] * within[groups[:, :, None], groups[:, None, :]]


def _best_of_groups(cost_goes: Tensor, cost_comes: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all pairs of all groups."""
    of = cross.shape[-1]
    shape = cross.shape[:-1]
    change = cost_goes.view(shape)[..., :, None] - cross
    change += cost_comes.view(shape)[..., None, :]
    best, pair = change.flatten(1).min(1)
    group, goes, comes = pair // of**2, pair % of**2 // of, pair % of
    return group * of + goes, group * of + comes, best
