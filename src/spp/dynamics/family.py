"""What a path and a ranking share: masks for any budget out of one order of all units."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import Budget, budget_range, cost_of, dense_total, prefix_masks, unit_costs
from spp.structure.cost import Cost
from spp.structure.pair import Pair
from spp.structure.tokens import Kept


class Family(ABC):
    """The members of one search, one for every budget.

    Attributes:
        pairs: what the units belong to, at the prices of the family's largest member.
        meta: "dense" holds macs and params of the dense model, or None; "tokens", where some leave for good in every
            member, those that stay (see `spp.structure.tokens.Kept`).
    """

    pairs: list[Pair]
    meta: dict[str, Any]

    @property
    def tokens(self) -> Kept:
        """The tokens that every member's blocks see; empty where that is all of them."""
        tokens: Kept = self.meta.get("tokens", {})
        return tokens

    def dense_total(self, kind: str) -> float:
        """What fractions of `kind` are of: that of the dense model, which has all its tokens."""
        if not self.tokens or kind == "units":
            return dense_total(self.pairs, kind)
        return float(self.meta["dense"][kind])

    def cost_of(self, masks: Mapping[str, Tensor]) -> Cost:
        """Cost of the compact model of `masks`."""
        return cost_of(self.pairs, masks)

    def budget_range(self, kind: str, min_units: int = 1) -> tuple[float, float]:
        """Smallest and largest budget of `kind` (macs, params or units) that can be reached, absolute."""
        return budget_range(self.pairs, kind, min_units)

    def _member(self, budget: Budget, min_units: int, *choice: Any) -> dict[str, Tensor]:
        """Masks of the longest prefix that the budget pays for, of the order of `choice`."""
        order, dense = self._flat_order(min_units, *choice), self.dense_total(budget.kind)
        return prefix_masks(self.pairs, order, budget, min_units, dense)

    def _rows(self, min_units: int, *choice: Any) -> Tensor:
        """The order of `choice` as rows of pair index and unit index, (num_units, 2) int64."""
        rows = torch.tensor([(p, unit) for p, pair in enumerate(self.pairs) for unit in range(pair.size)])
        return rows[self._flat_order(min_units, *choice)]

    @abstractmethod
    def _flat_order(self, min_units: int, *choice: Any) -> Tensor:
        """All units as unit numbers, best first, (num_units,)."""

    def _price(self, is_paid: bool) -> Tensor:
        """What a unit's worth is divided by, (num_units,) float64: 1 if paid already, else its MACs over the mean."""
        costs = unit_costs(self.pairs, "macs")
        return torch.ones_like(costs) if is_paid else costs / costs.mean()


def as_path(where: str | Path) -> Path:
    """`where` as a Path.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(where, str | os.PathLike):
        raise ValueError(f"path: {type(where).__name__} is not allowed: must be a folder or file; use 'runs/path'")
    return Path(where)
