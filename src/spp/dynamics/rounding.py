"""Masks whose widths are multiples of a number, or whole heads: what processors and stock code like."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spp.dynamics.budget import ROUNDING, Budget, OutOfReachError, absolute_size, cost_of, dense_total, split
from spp.dynamics.order import pair_indices, rank_within
from spp.structure.pair import Pair

FORMS = ("free", "heads", "deployable", "uniform")


def rounded_masks(
    pairs: Sequence[Pair],
    order: Tensor,
    budget: Budget,
    multiple_of: int,
    min_units: int = 1,
    dense: float | None = None,
    form: str = "free",
) -> dict[str, Tensor]:
    """Keep the longest prefix of `order` (order.unit_order) that the budget pays for with its widths rounded.

    The width of every MLP and, in the form "free", of every head that has units, is brought to the next multiple by the
    units of its own that come next in the order; a width that would exceed what is there stays whole. In the other
    forms heads are whole or gone, whatever `min_units`: "heads", each that has half of its units in the prefix;
    "deployable", all of an attention that has half of its units there, or none; "uniform", as many in each attention,
    namely the mean share of the units of all, at least one, and a divisor of their number (stock Llama wants hidden
    channels that are a multiple of the heads), and one share of units in all MLPs. Masks of a smaller budget are
    subsets.

    Args:
        pairs: what the units belong to.
        order: all units, best first; (num_units,).
        budget: the wanted size.
        multiple_of: what the widths are to be multiples of, 1 or more.
        min_units: units of every pair that come first.
        dense: see `budget.absolute_size`.
        form: one of FORMS.

    Returns: bool masks by pair name, each (size,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    size = absolute_size(pairs, budget.kind, budget.value, min_units, dense=dense)
    slack = ROUNDING * dense_total(pairs, budget.kind)
    group = _groups(pairs)
    rank = torch.empty_like(order)
    rank[order] = rank_within(group[order])
    shapes = _Shapes(pairs, group, order, form)

    def masks_of(num_kept: int) -> dict[str, Tensor]:
        counts = torch.bincount(group[order[:num_kept]], minlength=int(group.max()) + 1)
        widths = -(-counts // multiple_of) * multiple_of if form == "free" else shapes.widths(counts, multiple_of)
        return split(pairs, rank < widths[group])

    low, high = min(min_units * len(pairs), len(order)), len(order)
    lowest = _size(pairs, masks_of(low), budget.kind)
    if lowest > size + slack:
        share = math.ceil(1e4 * lowest / (dense or dense_total(pairs, budget.kind))) / 1e4
        shapes_of = "" if form == "free" else f"form={form} and "
        remedy = "a smaller multiple" if multiple_of > 1 else "budget.form=free"
        raise OutOfReachError(
            f"{budget.kind}: {budget.value:g} cannot be reached with {shapes_of}widths that are multiples of "
            f"{multiple_of}; allowed: {lowest:.0f} and more, or {share:g} and more of the dense model; use {remedy}"
        )
    while low < high:
        middle = (low + high + 1) // 2
        if _size(pairs, masks_of(middle), budget.kind) <= size + slack:
            low = middle
        else:
            high = middle - 1
    return masks_of(low)


class _Shapes:
    """Widths of whole heads and of MLPs for the units that a prefix has.

    Args:
        pairs: what the units belong to.
        group: number of the width of every unit, see `_groups`.
        order: all units, best first.
        form: one of FORMS but "free".
    """

    def __init__(self, pairs: Sequence[Pair], group: Tensor, order: Tensor, form: str) -> None:
        self.form = form
        self.sizes = torch.bincount(group)
        place = torch.empty(len(order), dtype=torch.float64)
        place[order] = torch.arange(len(order), dtype=torch.float64)
        self.mean_place = torch.zeros(len(self.sizes), dtype=torch.float64).index_add_(0, group, place) / self.sizes
        first = 0
        self.mlps: list[int] = []
        self.attentions: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for pair in pairs:
            num_groups = pair.num_heads if pair.per_head else 1
            for head in range(num_groups):
                if pair.kind == "mlp":
                    self.mlps.append(first)
                else:
                    self.attentions[pair.owner][head].append(first + head)
            first += num_groups

    def widths(self, counts: Tensor, multiple_of: int) -> Tensor:
        """The width of every group, (num_groups,), for the units of each that a prefix has."""
        made = torch.zeros_like(counts)
        shares = counts[self.mlps].double()
        if self.form == "uniform" and self.mlps:
            shares = (counts[self.mlps] / self.sizes[self.mlps]).mean() * self.sizes[self.mlps]
        # A share of all is a whole number but for rounding.
        made[self.mlps] = (((shares - 1e-6) / multiple_of).ceil() * multiple_of).to(counts.dtype)
        everywhere = [group for heads in self.attentions.values() for own in heads.values() for group in own]
        mean = self._share(counts, everywhere)
        for heads in self.attentions.values():
            for head in self._kept_heads(counts, heads, mean):
                made[heads[head]] = self.sizes[heads[head]]
        return made

    def _kept_heads(self, counts: Tensor, heads: Mapping[int, list[int]], mean: float) -> list[int]:
        if self.form == "uniform":
            divisors = [number for number in range(1, len(heads) + 1) if len(heads) % number == 0]
            num_kept = next(number for number in divisors if number >= min(mean * len(heads) - 0.5, len(heads)))
            return sorted(heads, key=lambda head: float(self.mean_place[heads[head]].mean()))[:num_kept]
        if self.form == "heads":
            return [head for head, own in heads.items() if self._share(counts, own) >= 0.5]
        all_groups = [group for own in heads.values() for group in own]
        return list(heads) if self._share(counts, all_groups) >= 0.5 else []

    def _share(self, counts: Tensor, groups: Sequence[int]) -> float:
        return float(counts[groups].sum() / self.sizes[groups].sum()) if groups else 1.0


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
