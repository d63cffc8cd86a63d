"""What the units of one attention cost together: heads are padded to the widest, and a head without values is free."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.structure.pair import Pair


@dataclass(frozen=True)
class Attention:
    """The pairs of one attention, and the cost of its compact form.

    The heads come in groups that come and go together: every head is one, or all heads are where both pairs are shared.
    A group is there while it has a "vo" unit. The groups that are there have the widest one's channels of each kind.
    Where the "vo" pair is not listed, all groups are there.

    Attributes:
        qk: index of the "qk" pair in the list of pairs, or None.
        vo: index of the "vo" pair, or None.
        num_groups: groups of heads.
        qk_price: cost of one query and key channel of one group.
        vo_price: cost of one value channel of one group.
        group_price: cost of one group that is there, beside its channels.
        qk_width: query and key channels of one group in the dense model, 0 without the pair.
        vo_width: value channels of one group in the dense model, 0 without the pair.
    """

    qk: int | None
    vo: int | None
    num_groups: int
    qk_price: float
    vo_price: float
    group_price: float
    qk_width: int
    vo_width: int

    @property
    def dense_cost(self) -> float:
        """Cost of all units."""
        channels = self.qk_width * self.qk_price + self.vo_width * self.vo_price
        return self.num_groups * (channels + self.group_price)

    def cost(self, qk: Tensor, vo: Tensor) -> Tensor:
        """Cost, (...), of `qk` query and key and `vo` value channels by group, (..., num_groups) each."""
        is_there = torch.ones_like(vo, dtype=torch.bool) if self.vo is None else vo > 0
        qk_width, vo_width = ((kept * is_there).amax(-1).double() for kept in (qk, vo))
        return is_there.sum(-1) * (qk_width * self.qk_price + vo_width * self.vo_price + self.group_price)

    def largest_cost(self, num_qk: int, num_vo: int, *, is_vo_shared: bool) -> float:
        """The most that `num_qk` and `num_vo` units can cost, wherever they lie."""
        qk_cost = min(num_qk, self.qk_width) * self.qk_price
        if self.vo is None:
            return self.num_groups * qk_cost
        if num_vo == 0:
            return 0.0
        if is_vo_shared:
            return self.num_groups * (qk_cost + num_vo * self.vo_price + self.group_price)
        fewest, most = -(-num_vo // self.vo_width), min(self.num_groups, num_vo)
        return max(
            groups * (qk_cost + min(num_vo - groups + 1, self.vo_width) * self.vo_price + self.group_price)
            for groups in range(fewest, most + 1)
        )


def attentions(pairs: Sequence[Pair], kind: str) -> list[Attention]:
    """The attentions that the pairs belong to, priced in `kind` (macs or params)."""
    members: dict[str, dict[str, int]] = {}
    for index, pair in enumerate(pairs):
        if pair.kind != "mlp":
            members.setdefault(pair.owner, {})[pair.kind] = index
    return [_attention(pairs, found.get("qk"), found.get("vo"), kind) for found in members.values()]


def switches(pairs: Sequence[Pair]) -> Tensor:
    """Number of the group of heads of every unit, (num_units,) int64; -1 where no "vo" unit decides about the unit."""
    found = [torch.full((pair.size,), -1) for pair in pairs]
    first = 0
    for attention in attentions(pairs, "params"):
        if attention.qk is None or attention.vo is None:
            continue
        both_alone = pairs[attention.qk].per_head and pairs[attention.vo].per_head
        for index in (attention.qk, attention.vo):
            pair = pairs[index]
            group = torch.arange(pair.size) // (pair.size // attention.num_groups) if both_alone else 0
            found[index][:] = first + group
        first += attention.num_groups
    return torch.cat(found)


def by_group(pair: Pair, units: Tensor, num_groups: int) -> Tensor:
    """In which groups the units of `pair` with the numbers `units` have a channel: (len(units), num_groups) bool."""
    if not pair.per_head:
        return torch.ones(len(units), num_groups, dtype=torch.bool)
    return (units // (pair.size // num_groups))[:, None] == torch.arange(num_groups)


def _attention(pairs: Sequence[Pair], qk: int | None, vo: int | None, kind: str) -> Attention:
    found = [pairs[index] for index in (qk, vo) if index is not None]
    num_groups = found[0].num_heads if any(pair.per_head for pair in found) else 1

    def price_and_width(index: int | None) -> tuple[float, int]:
        if index is None:
            return 0.0, 0
        pair = pairs[index]
        price = pair.macs_per_unit if kind == "macs" else pair.params_per_unit
        return (price, pair.size // num_groups) if pair.per_head else (price / num_groups, pair.size)

    (qk_price, qk_width), (vo_price, vo_width) = price_and_width(qk), price_and_width(vo)
    heads = 0 if vo is None or kind == "macs" else pairs[vo].num_heads * pairs[vo].params_per_head
    return Attention(qk, vo, num_groups, qk_price, vo_price, heads / num_groups, qk_width, vo_width)
