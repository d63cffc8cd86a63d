"""All units in one order, and the masks for any budget that follow: what a solution path and a ranking share."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from spp.dynamics.budget import Budget, budget_range, cost_of, dense_total, prefix_masks, unit_costs
from spp.dynamics.order import unit_order
from spp.dynamics.rounding import FORMS, rounded_masks
from spp.structure.cost import Cost
from spp.structure.pair import Pair
from spp.structure.tokens import Kept


class OrderedUnits(ABC):
    """What a search found out about all units, enough to give masks for any budget without the model.

    Attributes:
        pairs: what the units belong to, at the prices of the largest member.
        meta: "dense" holds macs and params of the dense model, or None; "tokens", where some leave for good in every
            member, those that stay (see `spp.structure.tokens.Kept`); "provenance" whatever was passed as `meta`.
        multiple_of: what the widths of all masks are rounded up to; see `rounded_to`.
        form: of all masks; see `rounded_to`.
    """

    multiple_of = 1
    form = "free"

    pairs: list[Pair]
    meta: dict[str, Any]
    _orders: dict[tuple[Any, ...], Tensor]

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write it, atomically, to `folder`/path.safetensors and return that file's path.

        Raises:
            ValueError: if `folder` is no path, or a file is in its place.
        """

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

    def rounded_to(self, multiple_of: int, form: str = "free") -> Self:
        """The same order, whose masks have widths that are multiples of a number; see `rounding.rounded_masks`.

        Args:
            multiple_of: a whole number of at least 1.
            form: free (widths of heads and MLPs), heads (whole ones or none), deployable (whole attentions or none) or
                uniform (the same in all layers).

        Raises:
            ValueError: if one of them is not allowed.
        """
        if form not in FORMS:
            raise ValueError(f"form: {form!r} is not known; allowed: {', '.join(FORMS)}; use free")
        if not isinstance(multiple_of, int) or isinstance(multiple_of, bool) or multiple_of < 1:
            raise ValueError(f"multiple_of: {multiple_of!r} is not allowed; allowed: 1 or more; use 8")
        made = copy.copy(self)
        object.__setattr__(made, "multiple_of", multiple_of)  # paths are frozen
        object.__setattr__(made, "form", form)
        return made

    def masks(
        self,
        *,
        macs: float | None = None,
        params: float | None = None,
        units: float | None = None,
        scope: str | None = None,
        min_units: int = 1,
    ) -> dict[str, Tensor]:
        """The best units that a budget pays for: bool masks by pair name, each (size,).

        Give one of macs, params, units: a fraction (<= 1) of the dense model's total (`units`: of all units)
        or an absolute size. scope and min_units: see `order`. With the same of these, the mask of a smaller
        budget is a subset of that of a larger one, and its cost is within one unit of the budget.

        Raises:
            ValueError: if not exactly one budget is given, it cannot be reached, or a choice is not known.
        """
        return self._prefix(Budget.of(macs=macs, params=params, units=units), min_units, scope)

    def order(self, *, scope: str | None = None, min_units: int = 1) -> Tensor:
        """All units, best first: (num_units, 2) int64 rows of pair index and unit index.

        scope: "global", one list, cost-aware where the costs are not in it already; "family", equal fractions of
            attention and MLP units; None: what goes with the search.
        min_units: units of every pair that come first.

        Raises:
            ValueError: if a choice is not known.
        """
        return self._rows(min_units, scope)

    def _prefix(self, budget: Budget, min_units: int, scope: str | None, score: str | None = None) -> dict[str, Tensor]:
        """Masks of the longest prefix that the budget pays for."""
        order, dense = self._flat_order(min_units, scope, score), self.dense_total(budget.kind)
        if self.multiple_of > 1 or self.form != "free":
            return rounded_masks(self.pairs, order, budget, self.multiple_of, min_units, dense, self.form)
        return prefix_masks(self.pairs, order, budget, min_units, dense)

    def _rows(self, min_units: int, scope: str | None, score: str | None = None) -> Tensor:
        """The order as rows of pair index and unit index, (num_units, 2) int64."""
        rows = torch.tensor([(p, unit) for p, pair in enumerate(self.pairs) for unit in range(pair.size)])
        return rows[self._flat_order(min_units, scope, score)]

    def _flat_order(self, min_units: int, scope: str | None, score: str | None = None) -> Tensor:
        """The order as unit numbers, (num_units,); computed once for every choice."""
        scope = scope or self._own_scope
        asked = (min_units, scope, score)
        if asked not in self._orders:
            key, tie = self._key(scope, score), self._tie()
            self._orders[asked] = unit_order(self.pairs, key, tie, scope=scope, min_units=min_units)
        return self._orders[asked]

    @property
    @abstractmethod
    def _own_scope(self) -> str:
        """The scope that goes with the search."""

    @abstractmethod
    def _key(self, scope: str, score: str | None) -> Tensor:
        """What the units are ordered by, ascending; (num_units,). `score` is for those that have several."""

    @abstractmethod
    def _tie(self) -> Tensor:
        """What units with equal keys are ordered by, descending; (num_units,)."""

    def _price(self, is_paid: bool) -> Tensor:
        """What a unit's worth is divided by, (num_units,) float64: 1 if paid already, else its MACs over the mean."""
        costs = unit_costs(self.pairs, "macs")
        return torch.ones_like(costs) if is_paid else costs / costs.mean()
