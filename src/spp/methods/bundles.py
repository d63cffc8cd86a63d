"""Units that a method keeps or drops together, as flat vectors on the CPU in float64.

All units of a model stand in one vector, pair after pair, and so do the bundles; small as they are, they cost one
transfer per direction and step.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from spp.dynamics.budget import ROUNDING, Budget, absolute_size, cost_of, dense_total, split, unit_costs
from spp.dynamics.order import pair_indices, rank_within, unit_order
from spp.structure.cost import Cost
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


@dataclass(frozen=True, eq=False)
class Bundles:
    """A partition of the units into bundles, and of the bundles into groups with a ranking each.

    Attributes:
        units: the model's pairs.
        groups: one pair per group, whose units are the bundles and whose prices are theirs.
        bundle_of: number of the bundle of every unit, (num_units,); `len(self)` for a unit of no bundle.
        are_heads: whether the bundles of an attention are its heads.
    """

    units: list[Pair]
    groups: list[Pair]
    bundle_of: Tensor
    are_heads: bool = False

    @classmethod
    def single(cls, pairs: Sequence[Pair]) -> "Bundles":
        """Every unit alone."""
        return _bundles(pairs, [[pair] for pair in pairs])

    @classmethod
    def tied(cls, pairs: Sequence[Pair]) -> "Bundles":
        """Channel j of the queries, keys and values of one attention together; MLP units alone.

        Raises:
            ValueError: an attention has different widths for its query-key and its value channels.
        """
        members = _attentions(pairs)
        for pair, *others in members:
            if any(other.size != pair.size for other in others):
                raise ValueError(
                    f"method.tied: True is not allowed: {pair.name} and {others[0].name} differ in width;"
                    " allowed: False; use method.tied=false"
                )
        return _bundles(pairs, members)

    @classmethod
    def heads(cls, pairs: Sequence[Pair], *, with_mlp: bool) -> "Bundles":
        """All channels of one head together; MLP units alone, or in no bundle.

        Raises:
            ValueError: the pairs share their units over the heads.
        """
        members = [group for group in _attentions(pairs) if with_mlp or group[0].kind != "mlp"]
        for pair in (pair for group in members for pair in group):
            if pair.kind != "mlp" and not pair.per_head:
                raise ValueError(
                    "model.per_head: False is not allowed with a method that drops whole heads;"
                    " allowed: True; use model.per_head=true"
                )
        return _bundles(pairs, members, are_heads=True)

    def __len__(self) -> int:
        return sum(group.size for group in self.groups)

    @cached_property
    def group_of(self) -> Tensor:
        """Number of the group of every bundle, (num_bundles,)."""
        return pair_indices(self.groups)

    @cached_property
    def sizes(self) -> Tensor:
        """Bundles of every group, (num_groups,) float64."""
        return torch.tensor([group.size for group in self.groups], dtype=torch.float64)

    def costs(self, kind: str) -> Tensor:
        """Cost of every bundle in macs, params or units next to all others, (num_bundles,) float64."""
        return self.reduce(unit_costs(self.units, kind)) if kind == "units" else unit_costs(self.groups, kind)

    def group_costs(self, kind: str) -> Tensor:
        """Cost of all bundles of every group, (num_groups,) float64."""
        costs = self.costs(kind)
        return costs.new_zeros(len(self.groups)).index_add(0, self.group_of, costs)

    def expand(self, values: Tensor) -> Tensor:
        """The value of its bundle for every unit, 1 for a unit of no bundle; differentiable."""
        return torch.cat([values, values.new_ones(1)])[self.bundle_of]

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over the units of every bundle; the transpose of `expand`."""
        return values.new_zeros(len(self) + 1).index_add(0, self.bundle_of, values)[:-1]

    def size(self, budget: Budget, min_units: int) -> float:
        """The budget in absolute terms.

        Raises:
            ValueError: these bundles cannot reach it.
        """
        if not self.are_heads:
            return absolute_size(self.units, budget.kind, budget.value, min_units)
        # What heads and MLP units save adds up, as if all of them were MLP units.
        plain = [replace(group, kind="mlp") for group in self.groups]
        if budget.kind != "units":
            return absolute_size(plain, budget.kind, budget.value, min_units)
        total = Cost(0.0, round(dense_total(self.units, "units")))
        sizes = (self.group_costs("units") / self.sizes).tolist()
        plain = [replace(p, params_per_unit=n, model_cost=total) for p, n in zip(plain, sizes, strict=True)]
        return absolute_size(plain, "params", budget.value, min_units, field="units")

    def keep_share(self, budget: Budget, min_units: int) -> float:
        """Share of the bundles' cost that the budget leaves them, in [0, 1].

        Raises:
            ValueError: these bundles cannot reach it.
        """
        total = float(self.costs(budget.kind).sum())
        dense = dense_total(self.units, budget.kind)
        return min(1.0, max(0.0, 1 - (dense - self.size(budget, min_units)) / total))

    def fill(
        self, key: Tensor, tie: Tensor, budget: Budget, min_units: int, *, scope: str = "global"
    ) -> dict[str, Tensor]:
        """Keep bundles by ascending `key` (equal ones by descending `tie`) as long as the budget pays for them.

        scope: of the order, see `unit_order`.

        Returns: bool masks by name of the model's pairs; their cost is less than one bundle below the budget.

        Raises:
            ValueError: these bundles cannot reach it.
        """
        order = unit_order(self.groups, key, tie, scope=scope, min_units=min_units)
        limit = self.size(budget, min_units) + ROUNDING * dense_total(self.units, budget.kind)

        def spent(num_kept: int) -> float:
            return cost_in(self.units, self._first(order, num_kept), budget.kind)

        return self._first(order, bisect.bisect_right(range(len(order) + 1), limit, key=spent) - 1)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """Bool masks by name of the model's pairs, of a bool tensor over the bundles."""
        return split(self.units, self.expand(kept))

    def top(self, scores: Tensor, counts: Tensor) -> Tensor:
        """1 for the `counts` best bundles of every group, else 0; equal scores in the order of the bundles."""
        return (self.ranks(scores) < counts[self.group_of]).double()

    def ranks(self, scores: Tensor) -> Tensor:
        """Position of every bundle in its group, best score first."""
        order = torch.argsort(scores, descending=True, stable=True)
        ranks = torch.empty_like(order)
        ranks[order] = rank_within(self.group_of[order])
        return ranks

    def shift_key(self, scores: Tensor, logits: Tensor) -> Tensor:
        """The smallest c at which every bundle is among the ceil(sigmoid(logit + c) * size) best of its group.

        In this order the learned keep ratios of all groups move up and down together, so that a budget is filled
        by bisection over one number; the best bundle of a group comes at -inf.
        """
        return torch.logit(self.ranks(scores) / self.sizes[self.group_of]) - logits[self.group_of]

    def _first(self, order: Tensor, num_kept: int) -> dict[str, Tensor]:
        """Masks of the first bundles of `order`."""
        kept = torch.zeros(len(self), dtype=torch.bool)
        kept[order[:num_kept]] = True
        return self.masks(kept)


def cost_in(pairs: Sequence[Pair], masks: Mapping[str, Tensor], kind: str) -> float:
    """Cost of the compact model of `masks` in macs, params or units."""
    if kind == "units":
        return float(sum(int(mask.sum()) for mask in masks.values()))
    cost = cost_of(pairs, masks)
    return cost.macs if kind == "macs" else float(cost.params)


def remaining_share(ratios: Tensor, sizes: Tensor, costs: Tensor) -> Tensor:
    """Share of the cost that is kept at the keep ratios of all groups; a group keeps one bundle at least.

    Shapes: (num_groups,) each, costs of a whole group; differentiable in the ratios.
    """
    return (torch.maximum(ratios, 1 / sizes) * costs).sum() / costs.sum()


def take_gradients(masks: Mapping[str, nn.Parameter]) -> Tensor:
    """The gradients of all masks, (num_units,) float64 on the CPU, cleared in the masks; 0 where there is none."""
    gradients = [torch.zeros_like(mask) if mask.grad is None else mask.grad for mask in masks.values()]
    for mask in masks.values():
        mask.grad = None
    return torch.cat(gradients).cpu().double()


def write_masks(masked: MaskedModel, values: Tensor) -> None:
    """Set all masks to `values` (num_units,)."""
    like = next(iter(masked.masks.values()))
    masked.set_masks(split(masked.pairs, values.detach().to(like.device, like.dtype)))


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _attentions(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs of one attention together, every other pair alone, in their order."""
    members: dict[str, list[Pair]] = {}
    for pair in pairs:
        members.setdefault(pair.name if pair.kind == "mlp" else pair.owner, []).append(pair)
    return list(members.values())


def _bundles(pairs: Sequence[Pair], members: Sequence[Sequence[Pair]], *, are_heads: bool = False) -> Bundles:
    """A group for every list of members; unit j of each of them is, or is in head, number j of the group."""
    dense = Cost(dense_total(pairs, "macs"), round(dense_total(pairs, "params")))
    groups = [_group(group, dense, are_heads=are_heads) for group in members]
    num_bundles = sum(group.size for group in groups)
    index = {pair.name: torch.full((pair.size,), num_bundles) for pair in pairs}
    start = 0
    for group, joined in zip(members, groups, strict=True):
        for pair in group:
            index[pair.name] = start + torch.arange(pair.size) // (pair.size // joined.size)
        start += joined.size
    return Bundles(list(pairs), groups, torch.cat([index[pair.name] for pair in pairs]), are_heads)


def _group(members: Sequence[Pair], dense: Cost, *, are_heads: bool) -> Pair:
    """One pair for all members; each of its units pays for the members' units in it, a head also for itself."""
    first = members[0]
    are_heads = are_heads and first.per_head
    size = first.num_heads if are_heads else first.size
    per_head = sum(pair.params_per_head for pair in members)
    return replace(
        first,
        name="+".join(pair.name for pair in members),
        size=size,
        params_per_unit=sum(pair.size // size * pair.params_per_unit for pair in members) + are_heads * per_head,
        macs_per_unit=sum(pair.size // size * pair.macs_per_unit for pair in members),
        per_head=first.per_head and not are_heads,
        params_per_head=0 if are_heads else per_head,
        model_cost=dense,
    )
