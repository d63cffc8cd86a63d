"""One fixed order of all units, best first; every budget takes a prefix of it, so that masks are nested."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spp.structure.pairs import Pair

SCOPES = ("global", "family")


def pair_indices(pairs: Sequence[Pair]) -> Tensor:
    """Index of the pair of every unit, (num_units,); units are numbered pair after pair."""
    return torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor([pair.size for pair in pairs]))


def unit_order(pairs: Sequence[Pair], key: Tensor, tie: Tensor, *, scope: str = "global", min_units: int = 1) -> Tensor:
    """Order the units by ascending `key`, equal keys by descending `tie`, then by index.

    The `min_units` best units of every pair come first, so that no prefix beyond them empties a pair.
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
    is_rest = rank_within(pair_of[order]) >= min_units
    order = torch.cat([order[~is_rest], order[is_rest]])
    if scope == "global":
        return order
    family_of = torch.tensor([pair.kind == "mlp" for pair in pairs]).long()[pair_of]
    family_size = torch.bincount(family_of, minlength=2)
    family = family_of[order]
    share = (rank_within(family) + 1).double() / family_size[family]
    merged = torch.argsort(family, stable=True)
    merged = merged[torch.argsort(share[merged], stable=True)]
    is_rest = torch.arange(len(order)) >= len(order) - int(is_rest.sum())
    merged = merged[torch.argsort(is_rest[merged].long(), stable=True)]
    return order[merged]


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
