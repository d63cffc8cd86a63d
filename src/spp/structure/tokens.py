"""Tokens that leave: from some block on a network goes on without them, and costs less for it."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from spp.structure.adapters.adapter import TokenPoint
from spp.structure.adapters.registry import adapter_for

Kept = dict[str, list[int]]
"""By name of the block the ascending numbers of the tokens that it sees, counted as at the first block, prefix tokens
included; empty where all tokens see all blocks."""


def token_points(model: nn.Module) -> list[TokenPoint]:
    """The blocks before which tokens can leave, in forward order; none where the model cannot do without some.

    Raises:
        ValueError: the model has no adapter.
    """
    return adapter_for(model).token_points(model)


def drop_tokens(model: nn.Module, kept: Mapping[str, Sequence[int]]) -> None:
    """Let the blocks of a model see only the tokens `kept`, in place; names and values of its weights stay.

    What has left before a block is gone for all that follow. `find_pairs` and `count_cost` of the result have the
    lower prices; `compact` keeps it so.

    Args:
        model: a model that has all its tokens.
        kept: see `Kept`; a block without an entry sees what the block before it sees.

    Raises:
        ValueError: the model has no such block, or a block's tokens are not among those of the block before it.
    """
    points = {point.block: point for point in token_points(model)}
    for name in kept:
        if name not in points:
            raise ValueError(
                f"tokens: {name} is not allowed: must be a block of this {type(model).__name__} that can do without"
                " some tokens; use names of token_points(model)"
            )
    before: list[int] | None = None
    for name, point in points.items():
        before = list(range(point.num_prefix + point.num_patches)) if before is None else before
        stay = list(kept.get(name, before))
        if stay != sorted(set(stay) & set(before)) or stay[: point.num_prefix] != before[: point.num_prefix]:
            raise ValueError(
                f"tokens: those of {name} are not allowed: must be ascending, among those of the block before it, and"
                f" hold the first {point.num_prefix}; use what kept_tokens(model) gave"
            )
        if stay != before:
            place = {token: index for index, token in enumerate(before)}
            adapter_for(model).drop_tokens(model, name, torch.tensor([place[token] for token in stay]))
        before = stay


def kept_tokens(model: nn.Module) -> Kept:
    """Which tokens the blocks of a model see, for `drop_tokens` to do the same to another."""
    points = token_points(model)
    indices = [getattr(model.get_submodule(point.block), "kept", None) for point in points]
    if all(index is None for index in indices):
        return {}
    stay = list(range(points[0].num_prefix + points[0].num_patches))
    kept: Kept = {}
    for point, index in zip(points, indices, strict=True):
        stay = stay if index is None else [stay[number] for number in index.tolist()]
        kept[point.block] = stay
    return kept
