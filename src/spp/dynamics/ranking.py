"""The ranking: a score for every unit, and the masks for any budget that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spp.dynamics import path_file
from spp.dynamics.budget import Budget, join
from spp.dynamics.family import Family, as_path
from spp.dynamics.order import key_per_cost, unit_order
from spp.dynamics.path import SolutionPath
from spp.structure.cost import Cost
from spp.structure.pair import Pair
from spp.structure.tokens import Kept


@dataclass(frozen=True, eq=False)
class Ranking(Family):
    """What a search found out that ends in scores, enough to give masks for any budget without the model.

    scores: what a unit is worth, larger is better, of any sign (float64, (size,) by pair name). meta holds
    "per_cost" (whether one list over all families divides a score by its unit's cost; False where the costs are in
    the scores already, or shall play no part), "dense" and "tokens" (see `Family`) and "provenance" (whatever was
    passed as `meta`).
    """

    scores: dict[str, Tensor]
    pairs: list[Pair]
    meta: dict[str, Any]
    _orders: dict[tuple[int, str], Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_scores(
        cls,
        scores: Mapping[str, Tensor],
        pairs: Sequence[Pair],
        *,
        per_cost: bool = True,
        tokens: Kept | None = None,
        dense: Cost | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> "Ranking":
        """The ranking by `scores`; `meta` is anything JSON can hold.

        Where some `tokens` leave, the pairs are those of the model without them, and `dense` is the cost of that with
        all of them.

        Raises:
            ValueError: if the scores are not one finite number for every unit of the pairs.
        """
        if {name: tuple(score.shape) for name, score in scores.items()} != {p.name: (p.size,) for p in pairs}:
            raise ValueError("scores: differ from the pairs in name or size; give one number per unit of every pair")
        for name, score in scores.items():
            if not torch.isfinite(score).all():
                raise ValueError(
                    f"scores: {name} has {int((~torch.isfinite(score)).sum())} that are not finite; allowed: finite"
                    " numbers; the search diverged, use a smaller step"
                )
        model = dense or pairs[0].model_cost
        return cls(
            {name: score.detach().double().cpu().clone() for name, score in scores.items()},
            list(pairs),
            {
                "per_cost": per_cost,
                "dense": model and {"macs": model.macs, "params": model.params},
                **({"tokens": tokens} if tokens else {}),
                "provenance": dict(meta or {}),
            },
        )

    def save(self, folder: str | Path) -> Path:
        """Write the ranking, atomically, to `folder`/path.safetensors and return that file's path.

        Raises:
            ValueError: if `folder` is no path, or a file is in its place.
        """
        tensors = {f"score/{name}": score for name, score in self.scores.items()}
        return path_file.write(as_path(folder), tensors, self.pairs, self.meta, path_file.RANKING_FORMAT)

    @classmethod
    def load(cls, where: str | Path) -> "Ranking":
        """Read a ranking from the folder or file that `save` wrote.

        Raises:
            ValueError: if there is none, or it is damaged or something else.
        """
        tensors, pairs, meta = path_file.read(as_path(where), path_file.RANKING_FORMAT)
        return cls({pair.name: tensors[f"score/{pair.name}"] for pair in pairs}, pairs, meta)

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
        return self._member(Budget.of(macs=macs, params=params, units=units), min_units, scope)

    def order(self, *, scope: str | None = None, min_units: int = 1) -> Tensor:
        """All units, best first: (num_units, 2) int64 rows of pair index and unit index.

        scope: "global" (also None), one list, by score per MAC cost where meta says so (`order.key_per_cost`:
            negative scores come last, those of dear units behind those of cheap ones); "family", by score, equal
            fractions of attention and MLP units. Equal keys are ordered by score, then by index.
        min_units: units of every pair that come first.

        Raises:
            ValueError: if a choice is not known.
        """
        return self._rows(min_units, scope)

    def _flat_order(self, min_units: int, scope: str | None = None) -> Tensor:
        """The order as unit numbers, (num_units,); computed once for every choice."""
        scope = scope or "global"
        choice = (min_units, scope)
        if choice not in self._orders:
            score = join(self.pairs, self.scores)
            key = key_per_cost(score, self._price(scope == "family" or not self.meta["per_cost"]))
            self._orders[choice] = unit_order(self.pairs, key, score, scope=scope, min_units=min_units)
        return self._orders[choice]


def open_path(where: str | Path) -> SolutionPath | Ranking:
    """Read what a search left in a folder or file: a solution path, or a ranking.

    Raises:
        ValueError: if there is none, or it is damaged or something else.
    """
    where = as_path(where)
    return Ranking.load(where) if path_file.is_ranking(where) else SolutionPath.load(where)
