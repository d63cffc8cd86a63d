"""Budgets: what a mask costs, which budgets can be reached, and the mask that fills one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.dynamics.order import pair_indices
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
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{kind}: {value!r} is not allowed: must be a number; use {kind}=0.5")
        return cls(kind, float(value))


def unit_costs(pairs: Sequence[Pair], kind: str) -> Tensor:
    """Cost of every unit in `kind`, (num_units,) float64."""
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
    """Smallest and largest budget of `kind` that can be reached: `min_units` of every pair, and all.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not known; allowed: {', '.join(KINDS)}; use macs")
    costs = unit_costs(pairs, kind)
    highest = dense_total(pairs, kind)
    firsts = torch.cat([torch.arange(pair.size) < min_units for pair in pairs])
    return highest - float(costs[~firsts].sum()), highest


def prefix_masks(pairs: Sequence[Pair], order: Tensor, budget: Budget, min_units: int = 1) -> dict[str, Tensor]:
    """Keep the longest prefix of `order` (order.unit_order) that the budget pays for.

    Masks of a smaller budget are subsets, whatever the kinds; the cost is below the budget by less than the
    next unit's.

    Returns: bool masks by pair name, each (size,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    kind, value = budget.kind, budget.value
    lowest, highest = budget_range(pairs, kind, min_units)
    size = value * highest if value <= 1 else value
    slack = ROUNDING * highest
    if not lowest - slack <= size <= highest + slack:
        share = math.ceil(1e4 * lowest / highest) / 1e4
        raise ValueError(
            f"{kind}: {value:g} cannot be reached: must be {math.ceil(lowest)} to {math.floor(highest)},"
            f" or {share:g} to 1 of the dense model, at min_units={min_units}; use {kind}={max(share, 0.5):g}"
        )
    costs = unit_costs(pairs, kind)
    spent = highest - float(costs.sum()) + costs[order].cumsum(0)
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[: int(torch.searchsorted(spent, size + slack, right=True))]] = True
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
    removed = [pair.size - int(masks[pair.name].sum()) if pair.name in masks else 0 for pair in pairs]
    macs = sum(count * pair.macs_per_unit for count, pair in zip(removed, pairs, strict=True))
    params = sum(count * pair.params_per_unit for count, pair in zip(removed, pairs, strict=True))
    return Cost(dense_total(pairs, "macs") - macs, round(dense_total(pairs, "params") - params))


def split(pairs: Sequence[Pair], flat: Tensor) -> dict[str, Tensor]:
    """A vector over all units, cut into one vector per pair, by name; copies."""
    pieces = torch.split(flat, [pair.size for pair in pairs])
    return {pair.name: piece.clone() for pair, piece in zip(pairs, pieces, strict=True)}


def join(pairs: Sequence[Pair], pieces: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `split`: (num_units,) float64."""
    return torch.cat([pieces[pair.name].double() for pair in pairs])
