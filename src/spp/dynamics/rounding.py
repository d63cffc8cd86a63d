"""Masks whose widths are multiples of a number: what the kernels of processors like, within the same budget."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spp.dynamics.budget import ROUNDING, Budget, OutOfReachError, absolute_size, cost_of, dense_total, split
from spp.dynamics.order import pair_indices, rank_within
from spp.structure.pair import Pair


def rounded_masks(
    pairs: Sequence[Pair],
    order: Tensor,
    budget: Budget,
    multiple_of: int,
    min_units: int = 1,
    dense: float | None = None,
) -> dict[str, Tensor]:
    """Keep the longest prefix of `order` (order.unit_order) that the budget pays for with its widths rounded up.

    The width of every MLP, and of every head that has units, is brought to the next multiple by the units of its own
    that come next in the order; a width that would exceed what is there stays whole. Masks of a smaller budget are
    subsets, and the cost is below the budget by less than what `multiple_of` units of one pair can add.

    Args:
        pairs: what the units belong to.
        order: all units, best first; (num_units,).
        budget: the wanted size.
        multiple_of: what the widths are to be multiples of, 1 or more.
        min_units: units of every pair that come first.
        dense: see `budget.absolute_size`.

    Returns: bool masks by pair name, each (size,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    size = absolute_size(pairs, budget.kind, budget.value, min_units, dense=dense)
    slack = ROUNDING * dense_total(pairs, budget.kind)
    group = _groups(pairs)
    rank = torch.empty_like(order)
    rank[order] = rank_within(group[order])

    def masks_of(num_kept: int) -> dict[str, Tensor]:
        counts = torch.bincount(group[order[:num_kept]], minlength=int(group.max()) + 1)
        return split(pairs, rank < (-(-counts // multiple_of) * multiple_of)[group])

    low, high = min(min_units * len(pairs), len(order)), len(order)
    lowest = _size(pairs, masks_of(low), budget.kind)
    if lowest > size + slack:
        raise OutOfReachError(
            f"{budget.kind}: {budget.value:g} cannot be reached with widths that are multiples of {multiple_of}; "
            f"allowed: {lowest:.0f} and more; use a smaller multiple"
        )
    while low < high:
        middle = (low + high + 1) // 2
        if _size(pairs, masks_of(middle), budget.kind) <= size + slack:
            low = middle
        else:
            high = middle - 1
    return masks_of(low)


def _groups(pairs: Sequence[Pair]) -> Tensor:
    """A number for every unit, (num_units,), that it shares with those of the same width: of its pair, or its head."""
    heads = [
        torch.arange(pair.size) // (pair.size // pair.num_heads) if pair.per_head else torch.zeros(pair.size).long()
        for pair in pairs
    ]
    most = max(pair.num_heads for pair in pairs)
    numbers = pair_indices(pairs) * most + torch.cat(heads)
    groups: Tensor = torch.unique(numbers, return_inverse=True)[1]
    return groups


def _size(pairs: Sequence[Pair], masks: Mapping[str, Tensor], kind: str) -> float:
    if kind == "units":
        return sum(int(mask.sum()) for mask in masks.values())
    return float(getattr(cost_of(pairs, masks), kind))
