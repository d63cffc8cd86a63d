"""One fixed order of all units, best first; every budget takes a prefix of it, so that masks are nested."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spp.dynamics.attention import switches
from spp.structure.pair import Pair

SCOPES = ("global", "family")


def pair_indices(pairs: Sequence[Pair]) -> Tensor:
    """Index of the pair of every unit, (num_units,); units are numbered pair after pair."""
    return torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor([pair.size for pair in pairs]))


def unit_order(pairs: Sequence[Pair], key: Tensor, tie: Tensor, *, scope: str = "global", min_units: int = 1) -> Tensor:
    """Order the units by ascending `key`, equal keys by descending `tie`, then by index.

    The `min_units` best units of every pair come first, so that no prefix beyond them empties a pair: those of a "qk"
    pair are the best of the heads that have such a "vo" unit. Of the others, a "qk" unit of a head that has no "vo"
    unit yet is of no use, and waits until right behind the head's first one.
    `scope="global"` is one list. `scope="family"` orders attention units (kinds "qk" and "vo") and MLP units
    apart and merges the two by rank over family size, so that every prefix keeps equal fractions of both.

    Shapes: key and tie (num_units,), without NaN; returns (num_units,) int64 unit numbers, best first.

    Raises:
        ValueError: if `scope` or `min_units` is not allowed.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope: {scope!r} is not known; allowed: {', '.join(SCOPES)}; use global")
    check_min_units(min_units)
    order = torch.argsort(tie, descending=True, stable=True)
    order = order[torch.argsort(key[order], stable=True)]
    pair_of = pair_indices(pairs)
    first = _floor(pairs, order, min_units)
    order = torch.cat([order[first[order]], order[~first[order]]])
    if scope == "global":
        return _after_values(pairs, order, first)
    family_of = torch.tensor([pair.kind == "mlp" for pair in pairs]).long()[pair_of]
    family_size = torch.bincount(family_of, minlength=2)
    family = family_of[order]
    share = (rank_within(family) + 1).double() / family_size[family]
    merged = torch.argsort(family, stable=True)
    merged = merged[torch.argsort(share[merged], stable=True)]
    merged = order[merged]
    merged = merged[torch.argsort((~first[merged]).long(), stable=True)]
    return _after_values(pairs, merged, first)


def add_ties(
    pairs: Sequence[Pair], order: Tensor, kept: Tensor, key: Tensor, *, scope: str = "global", min_units: int = 1
) -> Tensor:
    """`kept`, the first units of `order`, and all others that are no worse by `key` than the worst of them.

    This is what a threshold on the key keeps. The `min_units` units of every pair that come first whatever their key
    set no threshold; with `scope="family"` attention units and MLP units have one each. A budget's mask still holds
    that of a smaller one.

    Shapes: key and order (num_units,), scope and min_units as in `unit_order`; kept and the result (num_units,) bool.
    """
    is_chosen = kept.clone()
    is_chosen[order[: sum(min(min_units, pair.size) for pair in pairs)]] = False
    is_mlp = torch.tensor([pair.kind == "mlp" for pair in pairs])[pair_indices(pairs)]
    for pool in (is_mlp, ~is_mlp) if scope == "family" else (torch.ones_like(kept),):
        if (pool & is_chosen).any():
            kept = kept | (pool & (key <= key[pool & is_chosen].max()))
    return kept


def _floor(pairs: Sequence[Pair], order: Tensor, min_units: int) -> Tensor:
    """Which units come first whatever their key, (num_units,) bool."""
    pair_of, switch = pair_indices(pairs), switches(pairs)
    is_qk = torch.tensor([pair.kind == "qk" for pair in pairs])[pair_of]
    first = torch.zeros(len(order), dtype=torch.bool)
    first[order] = rank_within(pair_of[order]) < min_units
    is_on = torch.zeros(len(order) + 1, dtype=torch.bool)
    is_on[switch[first & ~is_qk]] = True
    is_useless = is_qk & (switch >= 0) & ~is_on[switch]
    order = order[torch.argsort(is_useless[order].long(), stable=True)]
    first[order] = rank_within(pair_of[order]) < min_units
    return first


def _after_values(pairs: Sequence[Pair], order: Tensor, first: Tensor) -> Tensor:
    """`order` with the "qk" units outside of the floor `first` moved behind the first "vo" unit of their head."""
    switch = switches(pairs)[order]
    is_qk = torch.tensor([pair.kind == "qk" for pair in pairs])[pair_indices(pairs)[order]]
    place = torch.arange(len(order))
    switched_on = torch.full((len(order) + 1,), -1)
    is_value = ~is_qk & (switch >= 0)
    switched_on.scatter_reduce_(0, switch[is_value], place[is_value], "amin", include_self=False)
    waits = is_qk & (switch >= 0) & ~first[order] & (switched_on[switch] > place)
    place = torch.where(waits, switched_on[switch], place)
    return order[torch.argsort(2 * place + waits, stable=True)]


def key_per_cost(worth: Tensor, price: Tensor) -> Tensor:
    """What to sort by, ascending, so that the units worth most per price come first; worth may have any sign.

    A positive worth is divided by the price and a negative one multiplied by it: units that do harm come behind all
    others, and among equals the dearest comes last, whose removal saves most. Nothing is shifted, so that the order
    does not hang on what the least unit happens to be worth. At equal prices it is the order of the worth.

    Shapes: (num_units,) each, price > 0; returns (num_units,).
    """
    return torch.where(worth > 0, -worth / price, -worth * price)


def check_min_units(min_units: int) -> None:
    """Raise ValueError unless `min_units` is a whole number >= 0."""
    if isinstance(min_units, bool) or not isinstance(min_units, int) or min_units < 0:
        raise ValueError(f"min_units: {min_units!r} is not allowed: must be a whole number >= 0; use 1")


def rank_within(groups: Tensor) -> Tensor:
    """Position of every element among those of its group, (n,): rank_within([0, 1, 0, 0]) is [0, 0, 1, 2]."""
    by_group = torch.argsort(groups, stable=True)
    sizes = torch.bincount(groups)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(groups)
    rank[by_group] = torch.arange(len(groups)) - starts[groups[by_group]]
    return rank
