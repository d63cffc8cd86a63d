"""Budgets: what a mask costs, which budgets can be reached, and the mask that fills one.

Costs are those of the compact model. Of an attention they are not a sum over its units: a head that has no "vo" unit
costs nothing, whatever its "qk" units, and the heads that have one are as wide as the widest of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.dynamics.attention import Attention, attentions, by_group
from spp.dynamics.number import real_number
from spp.dynamics.order import check_min_units, pair_indices, rank_within
from spp.structure.cost import Cost
from spp.structure.pair import Pair

KINDS = ("macs", "params", "units")
ROUNDING = 1e-9
"""Share of the dense total by which a sum of costs may miss a budget; far below the cost of one unit."""


class OutOfReachError(ValueError):
    """No choice of units has the wanted size."""


@dataclass(frozen=True)
class Budget:
    """A wanted size: macs, params or units; `value` <= 1 is a fraction of the dense total."""

    kind: str
    value: float

    @classmethod
    def of(cls, *, macs: float | None = None, params: float | None = None, units: float | None = None) -> "Budget":
        """The one budget that is given.

        Raises:
            ValueError: if none or several are given, or the value is no number.
        """
        given = {"macs": macs, "params": params, "units": units}
        given = {kind: value for kind, value in given.items() if value is not None}
        if len(given) != 1:
            named = " and ".join(given) or "none"
            raise ValueError(f"budget: got {named}; give exactly one of macs, params, units, e.g. macs=0.5")
        ((kind, value),) = given.items()
        return cls(kind, real_number(kind, value, 0.5))


def sizes_of(cost: Cost, masks: Mapping[str, Tensor]) -> dict[str, float]:
    """The size of a compact model in every kind: its cost, and the units that its masks keep."""
    return {"macs": cost.macs, "params": cost.params, "units": sum(int(mask.sum()) for mask in masks.values())}


def unit_costs(pairs: Sequence[Pair], kind: str) -> Tensor:
    """Cost of every unit in `kind` next to all others, (num_units,) float64; an equal part for each head's own unit."""
    per_pair = {
        "macs": [pair.macs_per_unit for pair in pairs],
        "params": [pair.params_per_unit for pair in pairs],
        "units": [1 for _ in pairs],
    }[kind]
    return torch.tensor(per_pair, dtype=torch.float64)[pair_indices(pairs)]


def dense_total(pairs: Sequence[Pair], kind: str) -> float:
    """Cost of the dense model in `kind`; of its units alone where the pairs do not know their model."""
    model = pairs[0].model_cost
    if kind == "units" or model is None:
        return _cost_of_all(pairs, kind)
    return float(model.macs if kind == "macs" else model.params)


def budget_range(pairs: Sequence[Pair], kind: str, min_units: int = 1) -> tuple[float, float]:
    """Smallest and largest budget of `kind` that every order can reach: `min_units` of every pair, and all.

    The smallest is that of the dearest choice of `min_units`: of heads that choose alone, several may have some of
    them, and one so many that all are as wide.

    Raises:
        ValueError: if there is no such kind, or min_units is no whole number >= 0.
    """
    check_min_units(min_units)
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not known; allowed: {', '.join(KINDS)}; use macs")
    highest = dense_total(pairs, kind)
    return highest - (_cost_of_all(pairs, kind) - _largest_floor(pairs, kind, min_units)), highest


def absolute_size(
    pairs: Sequence[Pair],
    kind: str,
    value: float,
    min_units: int = 1,
    *,
    field: str | None = None,
    dense: float | None = None,
) -> float:
    """The budget `value` of `kind` in absolute terms; a value <= 1 is a fraction of the dense total.

    Args:
        pairs: the pairs to choose from.
        kind: macs, params or units.
        value: the wanted size.
        min_units: units that every pair keeps at least.
        field: what the message calls the value; default: the kind.
        dense: the dense total, where tokens have left and the pairs' model is smaller than the dense one.

    Raises:
        OutOfReachError: if the budget cannot be reached.
        ValueError: if a choice is not known.
    """
    lowest, highest = budget_range(pairs, kind, min_units)
    dense = highest if dense is None else dense
    size = value * dense if value <= 1 else value
    slack = ROUNDING * highest
    if not lowest - slack <= size <= highest + slack:
        field = field or kind
        share, most = math.ceil(1e4 * lowest / dense) / 1e4, math.floor(1e4 * highest / dense) / 1e4
        raise OutOfReachError(
            f"{field}: {value:,.12g} cannot be reached; allowed: {math.ceil(lowest):,} to "
            f"{math.floor(highest):,}, or"
            f" {share:g} to {most:g} of the dense model, at min_units={min_units};"
            f" use {field}={min(max(share, 0.5), most):g}"
        )
    return size


def prefix_masks(
    pairs: Sequence[Pair], order: Tensor, budget: Budget, min_units: int = 1, dense: float | None = None
) -> dict[str, Tensor]:
    """Keep the longest prefix of `order` (order.unit_order) that the budget pays for.

    Masks of a smaller budget are subsets, whatever the kinds. The cost is below the budget by less than what the next
    unit adds. That is its own cost where heads share their units. Where they choose alone it is nothing, one channel
    of every head that is there, or, if the unit is the first "vo" unit of its head, that whole head at the widths that
    the others have: an order of `unit_order` never adds more at a time (one with "qk" units before their head's first
    "vo" unit can). dense: see `absolute_size`.

    Returns: bool masks by pair name, each (size,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    size = absolute_size(pairs, budget.kind, budget.value, min_units, dense=dense)
    highest = dense_total(pairs, budget.kind)
    costs = _costs_along(pairs, order, budget.kind)
    spent = highest - _cost_of_all(pairs, budget.kind) + costs.cumsum(0)
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[: int(torch.searchsorted(spent, size + ROUNDING * highest, right=True))]] = True
    return split(pairs, kept)


def cost_of(pairs: Sequence[Pair], masks: Mapping[str, Tensor]) -> Cost:
    """Cost of the compact model of `masks` (of its units alone where the pairs do not know their model).

    A pair without a mask keeps all units, as in `compact`. Of a head that leaves, the "qk" units are counted off if
    their pair is listed.

    Raises:
        ValueError: if a mask is no pair's.
    """
    names = [pair.name for pair in pairs]
    unknown = sorted(set(masks) - set(names))
    if unknown:
        raise ValueError(f"masks: {unknown[0]!r} is no pair; allowed: {', '.join(names)}")
    macs, params = (dense_total(pairs, kind) - _cost_removed(pairs, masks, kind) for kind in ("macs", "params"))
    return Cost(macs, round(params))


def _cost_removed(pairs: Sequence[Pair], masks: Mapping[str, Tensor], kind: str) -> float:
    """What the compact model of `masks` saves."""
    removed = sum(
        float((~masks[pair.name]).sum()) * (pair.macs_per_unit if kind == "macs" else pair.params_per_unit)
        for pair in pairs
        if pair.kind == "mlp" and pair.name in masks
    )
    for attention in attentions(pairs, kind):
        counts = (_counts(pairs, index, masks, attention) for index in (attention.qk, attention.vo))
        removed += attention.dense_cost - float(attention.cost(*counts))
    return removed


def _counts(pairs: Sequence[Pair], index: int | None, masks: Mapping[str, Tensor], attention: Attention) -> Tensor:
    """Kept channels by group of heads, (num_groups,)."""
    if index is None:
        return torch.zeros(attention.num_groups, dtype=torch.int64)
    pair = pairs[index]
    units = masks[pair.name].cpu().nonzero().flatten() if pair.name in masks else torch.arange(pair.size)
    return by_group(pair, units, attention.num_groups).sum(0)


def _cost_of_all(pairs: Sequence[Pair], kind: str) -> float:
    """Cost of all units, and of the heads as such."""
    heads = sum(pair.num_heads * pair.params_per_head for pair in pairs if pair.kind == "vo" and kind == "params")
    return float(unit_costs(pairs, kind).sum() + heads)


def _largest_floor(pairs: Sequence[Pair], kind: str, min_units: int) -> float:
    """The most that `min_units` units of every pair can cost."""
    floors = [min(min_units, pair.size) for pair in pairs]
    if kind == "units":
        return sum(floors)
    costs = [pair.macs_per_unit if kind == "macs" else pair.params_per_unit for pair in pairs]
    spent = sum(n * c for n, c, pair in zip(floors, costs, pairs, strict=True) if pair.kind == "mlp")
    for attention in attentions(pairs, kind):
        num_qk, num_vo = (0 if index is None else floors[index] for index in (attention.qk, attention.vo))
        is_vo_shared = attention.vo is not None and not pairs[attention.vo].per_head
        spent += attention.largest_cost(num_qk, num_vo, is_vo_shared=is_vo_shared)
    return spent


def _costs_along(pairs: Sequence[Pair], order: Tensor, kind: str) -> Tensor:
    """What every unit adds to the compact model when units come in `order`; shape of `order`, float64.

    A "qk" unit of a head without "vo" units adds nothing, and neither does one that fills its head up to the width
    of the widest. The first "vo" unit of a head pays for the head.
    """
    costs = unit_costs(pairs, kind)[order]
    if kind == "units":
        return costs
    pair_of = pair_indices(pairs)[order]
    number = rank_within(pair_indices(pairs))[order]
    for attention in attentions(pairs, kind):
        is_qk, is_vo = (pair_of == (-1 if index is None else index) for index in (attention.qk, attention.vo))
        places = (is_qk | is_vo).nonzero().flatten()
        counts = []
        for index, is_mine in ((attention.qk, is_qk[places]), (attention.vo, is_vo[places])):
            added = torch.zeros(len(places), attention.num_groups, dtype=torch.int64)
            if index is not None:
                added[is_mine] = by_group(pairs[index], number[places[is_mine]], attention.num_groups).long()
            counts.append(added.cumsum(0))
        spent = attention.cost(*counts)
        costs[places] = spent.diff(prepend=spent.new_zeros(1))
    return costs


def split(pairs: Sequence[Pair], flat: Tensor) -> dict[str, Tensor]:
    """A vector over all units, cut into one vector per pair, by name; copies."""
    pieces = torch.split(flat, [pair.size for pair in pairs])
    return {pair.name: piece.clone() for pair, piece in zip(pairs, pieces, strict=True)}


def join(pairs: Sequence[Pair], pieces: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `split`: (num_units,) float64."""
    return torch.cat([pieces[pair.name].double() for pair in pairs])
