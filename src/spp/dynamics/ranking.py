"""The ranking: a score for every unit, and the masks for any budget that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spp.dynamics import storage
from spp.dynamics.budget import join
from spp.dynamics.order import key_per_cost
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.path import SolutionPath
from spp.structure.cost import Cost
from spp.structure.pair import Pair
from spp.structure.tokens import Kept


@dataclass(frozen=True, eq=False)
class Ranking(OrderedUnits):
    """What a search found out that ends in scores, enough to give masks for any budget without the model.

    In the scope "global" (also None) units are ordered by score per MAC cost where meta says so (`order.key_per_cost`:
    negative scores come last, those of dear units behind those of cheap ones), in "family" by score. Equal keys are
    ordered by score, then by index.

    scores: what a unit is worth, larger is better, of any sign (float64, (size,) by pair name). meta holds
    "per_cost" (whether one list over all families divides a score by its unit's cost; False where the costs are in
    the scores already, or shall play no part), "dense" and "tokens" (see `OrderedUnits`) and "provenance" (whatever was
    passed as `meta`).
    """

    scores: dict[str, Tensor]
    pairs: list[Pair]
    meta: dict[str, Any]
    _orders: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, init=False, repr=False)

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
        tensors = {f"score/{name}": score for name, score in self.scores.items()}
        return storage.write(folder, tensors, self.pairs, self.meta, storage.RANKING_FORMAT)

    @classmethod
    def load(cls, where: str | Path) -> "Ranking":
        """Read a ranking from the folder or file that `save` wrote.

        Raises:
            ValueError: if there is none, or it is damaged or something else.
        """
        tensors, pairs, meta = storage.read(where, storage.RANKING_FORMAT)
        return cls({pair.name: tensors[f"score/{pair.name}"] for pair in pairs}, pairs, meta)

    @property
    def _own_scope(self) -> str:
        return "global"

    def _key(self, scope: str, score: str | None) -> Tensor:
        return key_per_cost(self._tie(), self._price(scope == "family" or not self.meta["per_cost"]))

    def _tie(self) -> Tensor:
        """The score of every unit, (num_units,)."""
        return join(self.pairs, self.scores)


def open_path(where: str | Path) -> SolutionPath | Ranking:
    """Read what a search left in a folder or file: a solution path, or a ranking.

    Raises:
        ValueError: if there is none, or it is damaged or something else.
    """
    return Ranking.load(where) if storage.is_ranking(where) else SolutionPath.load(where)
