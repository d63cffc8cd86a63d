"""Budgets: what a mask costs, which budgets can be reached, and the mask that fills one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.dynamics.number import real_number
from spp.dynamics.order import check_min_units, pair_indices, rank_within
from spp.structure.cost import Cost
from spp.structure.pairs import Pair

KINDS = ("macs", "params", "units")
ROUNDING = 1e-9
"""Share of the dense total by which a sum of costs may miss a budget; far below the cost of one unit."""


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


def unit_costs(pairs: Sequence[Pair], kind: str) -> Tensor:
    """Cost of every unit in `kind`, (num_units,) float64; of heads that choose alone an equal part each."""
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
        return float(unit_costs(pairs, kind).sum())
    return float(model.macs if kind == "macs" else model.params)


def budget_range(pairs: Sequence[Pair], kind: str, min_units: int = 1) -> tuple[float, float]:
    """Smallest and largest budget of `kind` that every order can reach: `min_units` of every pair, and all.

    Heads that choose alone may have their `min_units` all in one head, to whose width the others are padded.

    Raises:
        ValueError: if there is no such kind, or min_units is no whole number >= 0.
    """
    check_min_units(min_units)
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not known; allowed: {', '.join(KINDS)}; use macs")
    costs = unit_costs(pairs, kind)
    highest = dense_total(pairs, kind)
    units = torch.arange(len(costs))
    first_units = units[rank_within(pair_indices(pairs)) < min_units]
    spent = _costs_along(pairs, first_units, kind).sum()
    return highest - float(costs.sum() - spent), highest


def absolute_size(
    pairs: Sequence[Pair], kind: str, value: float, min_units: int = 1, *, field: str | None = None
) -> float:
    """The budget `value` of `kind` in absolute terms; a value <= 1 is a fraction of the dense total.

    Args:
        pairs: the pairs to choose from.
        kind: macs, params or units.
        value: the wanted size.
        min_units: units that every pair keeps at least.
        field: what the message calls the value; default: the kind.

    Raises:
        ValueError: if the budget cannot be reached, or a choice is not known.
    """
    lowest, highest = budget_range(pairs, kind, min_units)
    size = value * highest if value <= 1 else value
    slack = ROUNDING * highest
    if not lowest - slack <= size <= highest + slack:
        field = field or kind
        share = math.ceil(1e4 * lowest / highest) / 1e4
        raise ValueError(
            f"{field}: {value:g} cannot be reached; allowed: {math.ceil(lowest)} to {math.floor(highest)},"
            f" or {share:g} to 1 of the dense model, at min_units={min_units}; use {field}={max(share, 0.5):g}"
        )
    return size


def prefix_masks(pairs: Sequence[Pair], order: Tensor, budget: Budget, min_units: int = 1) -> dict[str, Tensor]:
    """Keep the longest prefix of `order` (order.unit_order) that the budget pays for.

    Masks of a smaller budget are subsets, whatever the kinds; the cost is below the budget by less than the
    next unit's (for heads that choose alone: by less than that of one channel of every head).

    Returns: bool masks by pair name, each (size,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    size = absolute_size(pairs, budget.kind, budget.value, min_units)
    highest = dense_total(pairs, budget.kind)
    costs = _costs_along(pairs, order, budget.kind)
    spent = highest - float(costs.sum()) + costs.cumsum(0)
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[: int(torch.searchsorted(spent, size + ROUNDING * highest, right=True))]] = True
    return split(pairs, kept)


def cost_of(pairs: Sequence[Pair], masks: Mapping[str, Tensor]) -> Cost:
    """Cost of the compact model of `masks` (of its units alone where the pairs do not know their model).

    A pair without a mask keeps all units, as in `compact`.

    Raises:
        ValueError: if a mask is no pair's.
    """
    names = [pair.name for pair in pairs]
    unknown = sorted(set(masks) - set(names))
    if unknown:
        raise ValueError(f"masks: {unknown[0]!r} is no pair; allowed: {', '.join(names)}")
    removed = [pair.size - _num_paid(pair, masks[pair.name]) if pair.name in masks else 0 for pair in pairs]
    macs = sum(count * pair.macs_per_unit for count, pair in zip(removed, pairs, strict=True))
    params = sum(count * pair.params_per_unit for count, pair in zip(removed, pairs, strict=True))
    return Cost(dense_total(pairs, "macs") - macs, round(dense_total(pairs, "params") - params))


def _costs_along(pairs: Sequence[Pair], order: Tensor, kind: str) -> Tensor:
    """What every unit adds to the compact model when units come in `order`; shape of `order`, float64.

    Heads that choose alone are padded to the widest of their pair. The unit that makes its head the widest pays
    for a channel of every head; those that fill the other heads up are free.
    """
    costs = unit_costs(pairs, kind)
    if kind == "units" or not any(pair.per_head for pair in pairs):
        return costs[order]
    sizes = torch.tensor([pair.size for pair in pairs])
    num_heads = torch.tensor([pair.num_heads if pair.per_head else 1 for pair in pairs])
    pair_of = pair_indices(pairs)
    head_of = rank_within(pair_of) // (sizes // num_heads)[pair_of]
    rank = rank_within((pair_of * num_heads.max() + head_of)[order])
    is_widest = rank_within((pair_of * sizes.max())[order] + rank) == 0
    return torch.where(is_widest, (costs * num_heads[pair_of])[order], 0.0)


def _num_paid(pair: Pair, mask: Tensor) -> int:
    """Units of `pair` in the compact model of `mask`, padding of heads that chose alone included."""
    if not pair.per_head:
        return int(mask.sum())
    return pair.num_heads * int(mask.view(pair.num_heads, -1).sum(1).max())


def split(pairs: Sequence[Pair], flat: Tensor) -> dict[str, Tensor]:
    """A vector over all units, cut into one vector per pair, by name; copies."""
    pieces = torch.split(flat, [pair.size for pair in pairs])
    return {pair.name: piece.clone() for pair, piece in zip(pairs, pieces, strict=True)}


def join(pairs: Sequence[Pair], pieces: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `split`: (num_units,) float64."""
    return torch.cat([pieces[pair.name].double() for pair in pairs])
