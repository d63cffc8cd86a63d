"""The solution path: when each unit entered the support, and the masks for any budget that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spp.dynamics import storage
from spp.dynamics.bregman import BregmanOptimizer
from spp.dynamics.budget import Budget, join, split
from spp.dynamics.order import add_ties, key_per_cost, unit_order
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.presets import PRESETS
from spp.dynamics.recorder import Trace
from spp.structure.pair import Pair

SCORES = ("entry", "V", "S")


@dataclass(frozen=True, eq=False)
class SolutionPath(OrderedUnits):
    """What one search along the path found out, enough to give masks for any budget without the model.

    entry: steps until the unit entered, inf if it never did; V: its final V; S: sampled steps in the support
    (float64, float64, int64; each (size,) by pair name). meta holds "preset", "hyper" (hyper-parameters),
    "num_steps" (planned), "num_steps_taken", "scale" (s of preset priced), "costs_in_dynamics" (whether its
    gradient was divided by costs of units), "dense" (macs and params of the
    model, or None) and "provenance" (whatever was passed as `meta`).

    rank: of a path whose order was refined (`refined`), the place of every unit in it, 0 the best (int64, (size,) by
    pair name); meta["refined"] then holds the "scope", "score" and "min_units" that it was refined for.
    """

    entry: dict[str, Tensor]
    V: dict[str, Tensor]
    S: dict[str, Tensor]
    pairs: list[Pair]
    meta: dict[str, Any]
    trace: Trace | None = None
    rank: dict[str, Tensor] | None = None
    _orders: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_optimizer(
        cls,
        opt: BregmanOptimizer,
        pairs: Sequence[Pair],
        *,
        trace: Trace | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> "SolutionPath":
        """The path that `opt` has taken so far; `meta` is anything JSON can hold.

        Raises:
            ValueError: if the pairs are not those of the optimizer's masks.
        """
        if {pair.name: pair.size for pair in pairs} != opt.sizes:
            raise ValueError("pairs: differ from the optimizer's masks in name or size; pass those of the MaskedModel")
        states = {pair.name: opt.state_of(pair.name) for pair in pairs}
        model = pairs[0].model_cost
        entry, value, occupancy = (
            {name: state[key].cpu().flatten() for name, state in states.items()} for key in ("entry", "V", "S")
        )
        return cls(
            entry,
            value,
            occupancy,
            list(pairs),
            {
                "preset": opt.preset,
                "hyper": opt.hyper,
                "num_steps": opt.num_steps,
                "num_steps_taken": opt.num_steps_taken,
                "scale": opt.scale,
                "costs_in_dynamics": opt.has_costs,
                "dense": model and {"macs": model.macs, "params": model.params},
                "provenance": dict(meta or {}),
            },
            trace,
        )

    def refined(
        self,
        best: Tensor,
        *,
        scope: str | None = None,
        score: str = "entry",
        min_units: int = 1,
        about: Mapping[str, Any] | None = None,
    ) -> "SolutionPath":
        """This path with the first units of its order in another order; it has no other one any more.

        The `min_units` best units of every pair still come first, and heads without values still wait.

        Args:
            best: numbers of the first units (`unit_numbers` with the same choices), int64, the best first.
            scope: as in `order`.
            score: as in `order`.
            min_units: as in `order`.
            about: what else meta["refined"] shall hold.

        Raises:
            ValueError: these are not the first units.
        """
        order = self.unit_numbers(scope=scope, score=score, min_units=min_units)
        num = len(best)
        if not torch.equal(best.sort().values, order[:num].sort().values):
            raise ValueError(f"best: these are not the first {num} units of the order; give those, in another order")
        key = torch.full((len(order),), float(num), dtype=torch.float64)
        key[best] = torch.arange(num, dtype=torch.float64)
        scope = scope or self._own_scope
        inner = unit_order(self.pairs, key, self._tie(), scope=scope, min_units=min_units)
        is_inner = key < num
        # Of heads that choose alone a unit that comes first whatever its key may be one of the others.
        is_inner[inner[: sum(min(min_units, pair.size) for pair in self.pairs)]] = True
        order = torch.cat([inner[is_inner[inner]], order[~is_inner[order]]])
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        choice = {"scope": scope, "score": score, "min_units": min_units}
        return replace(self, rank=split(self.pairs, rank), meta={**self.meta, "refined": {**choice, **(about or {})}})

    def save(self, folder: str | Path) -> Path:
        tensors = {
            f"{key}/{name}": tensor
            for key, values in (("entry", self.entry), ("V", self.V), ("S", self.S))
            for name, tensor in values.items()
        }
        if self.trace is not None:
            tensors["trace/steps"] = self.trace.steps
            tensors |= {f"trace/gamma/{name}": gamma for name, gamma in self.trace.gamma.items()}
        if self.rank is not None:
            tensors |= {f"rank/{name}": rank for name, rank in self.rank.items()}
        return storage.write(folder, tensors, self.pairs, self.meta, storage.PATH_FORMAT)

    @classmethod
    def load(cls, where: str | Path) -> "SolutionPath":
        """Read a path from the folder or file that `save` wrote.

        Raises:
            ValueError: if there is none, or it is damaged or something else.
        """
        tensors, pairs, meta = storage.read(where, storage.PATH_FORMAT)
        entry, value, occupancy = (
            {pair.name: tensors[f"{key}/{pair.name}"] for pair in pairs} for key in ("entry", "V", "S")
        )
        trace = None
        if "trace/steps" in tensors:
            trace = Trace(tensors["trace/steps"], {pair.name: tensors[f"trace/gamma/{pair.name}"] for pair in pairs})
        rank = {pair.name: tensors[f"rank/{pair.name}"] for pair in pairs} if "refined" in meta else None
        return cls(entry, value, occupancy, pairs, meta, trace, rank)

    def masks(
        self,
        *,
        macs: float | None = None,
        params: float | None = None,
        units: float | None = None,
        scope: str | None = None,
        score: str = "entry",
        min_units: int = 1,
        keep_ties: bool = False,
    ) -> dict[str, Tensor]:
        """The best units that a budget pays for: bool masks by pair name, each (size,).

        Give one of macs, params, units: a fraction (<= 1) of the dense model's total (`units`: of all units)
        or an absolute size. scope, score and min_units: see `order`. With the same of these, the mask of a
        smaller budget is a subset of that of a larger one, and its cost is within one unit of the budget.

        keep_ties: keep also whatever has the score of the last unit that was chosen (see `order.add_ties`): as many
            units as tie exceed the budget.

        Raises:
            ValueError: if not exactly one budget is given, it cannot be reached, or a choice is not known.
        """
        masks = self._prefix(Budget.of(macs=macs, params=params, units=units), min_units, scope, score)
        if not keep_ties:
            return masks
        if self.multiple_of > 1:
            raise ValueError(
                f"multiple_of: {self.multiple_of} is not allowed where ties are kept; allowed: 1; use it, or a method "
                "without released_quirks"
            )
        order, kept = self._flat_order(min_units, scope, score), join(self.pairs, masks).bool()
        scope = scope or self._own_scope
        ties = add_ties(self.pairs, order, kept, self._key(scope, score), scope=scope, min_units=min_units)
        return split(self.pairs, ties)

    def order(self, *, scope: str | None = None, score: str = "entry", min_units: int = 1) -> Tensor:
        """All units, best first: (num_units, 2) int64 rows of pair index and unit index.

        score: "entry", the time of entry, with those that never entered last, by V; "V", its final value;
            "S", the sampled occupancy of the released code. Equal scores are ordered by V, then by index.
        scope: "global", one list, by score per cost unless the dynamics had the costs (preset `priced`
            with costs known); "family", equal fractions of attention and MLP units. None: global for `priced`,
            else family.
        min_units: units of every pair that come first.

        Raises:
            ValueError: if a choice is not known, or "S" is asked of a path that sampled none.
        """
        return self._rows(min_units, scope, score)

    def unit_numbers(self, *, scope: str | None = None, score: str = "entry", min_units: int = 1) -> Tensor:
        """`order` as numbers of units, which are counted pair after pair: (num_units,) int64, best first."""
        return self._flat_order(min_units, scope, score)

    def _flat_order(self, min_units: int, scope: str | None, score: str | None = None) -> Tensor:
        if self.rank is None:
            return super()._flat_order(min_units, scope, score)
        asked = {"scope": scope or self._own_scope, "score": score, "min_units": min_units}
        for name, value in asked.items():
            own = self.meta["refined"][name]
            if value != own:
                raise ValueError(
                    f"{name}: {value} is not allowed: the order of this path was refined for {name}={own}; allowed: "
                    f"{own}; use it, or search anew"
                )
        return torch.cat([self.rank[pair.name] for pair in self.pairs]).argsort()

    @property
    def _own_scope(self) -> str:
        return "global" if self.meta["preset"] == "priced" else "family"

    def _tie(self) -> Tensor:
        """V of every unit, or |V| where both signs may enter; (num_units,)."""
        value = join(self.pairs, self.V)
        return value.abs() if PRESETS[self.meta["preset"]].two_sided else value

    def _key(self, scope: str, score: str | None) -> Tensor:
        value, price = self._tie(), self._price(scope == "family" or self.meta["costs_in_dynamics"])
        if score == "entry":
            return self._extended_time(value) * price
        if score == "V":
            return key_per_cost(value, price)
        if score != "S":
            raise ValueError(f"score: {score!r} is not known; allowed: {', '.join(SCORES)}; use entry")
        occupancy = join(self.pairs, self.S)
        if not occupancy.any():
            raise ValueError("score: S is not allowed: the search sampled no occupancy; use entry")
        return -occupancy / price

    def _extended_time(self, value: Tensor) -> Tensor:
        """Time of entry in steps; T*(1 + (lam - V)/lam), past the end T, for a unit that never entered.

        Our own continuation of the paper's path. Shape (num_units,).
        """
        entry, lam, num_steps = (
            join(self.pairs, self.entry),
            self.meta["hyper"]["lam"],
            self.meta["num_steps_taken"],
        )
        return torch.where(entry.isinf(), num_steps * (1 + (lam - value) / lam), entry)
