"""Cut rows and columns out of Linear layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PADDING = -1
"""Stands in an index for a channel of zeros."""


def pack(kept: Sequence[Tensor], width: int, heads: Sequence[int] | None = None) -> Tensor:
    """Index that gathers the kept channels of the kept heads into heads of equal width.

    Heads with fewer channels than the widest are filled up with PADDING: fused attention needs equal heads. A
    padded query channel meets a padded key channel and a padded value channel meets a padded column of the
    projection; both ends of the product are zero, so are their gradients, and training leaves them alone.

    Args:
        kept: per head the ascending numbers, in [0, width), of its kept channels.
        width: channels of one head before.
        heads: ascending numbers of the heads to keep; None: all.

    Returns:
        Integer tensor of shape (number of kept heads * widest of them,).
    """
    heads = range(len(kept)) if heads is None else heads
    widest = max((len(kept[head]) for head in heads), default=0)
    index = torch.full((len(heads), widest), PADDING)
    for row, head in enumerate(heads):
        index[row, : len(kept[head])] = kept[head] + head * width
    return index.flatten()


def shift(index: Tensor, offset: int) -> Tensor:
    """Move an index by `offset` channels; padding stays padding."""
    return torch.where(index == PADDING, PADDING, index + offset)


def keep_rows(linear: nn.Linear, index: Tensor) -> None:
    """Keep the output channels `index` of weight and bias, in place."""
    linear.weight = gather(linear.weight, index, dim=0)
    if linear.bias is not None:
        linear.bias = gather(linear.bias, index, dim=0)
    linear.out_features = len(index)


def keep_columns(linear: nn.Linear, index: Tensor) -> None:
    """Keep the input channels `index` of the weight, in place; the bias stays whole."""
    linear.weight = gather(linear.weight, index, dim=1)
    linear.in_features = len(index)


def gather(source: Tensor, index: Tensor, dim: int) -> nn.Parameter:
    """A parameter of the slices `index` of `source` along `dim`; PADDING gives zeros."""
    index = index.to(source.device)
    gathered = source.detach().index_select(dim, index.clamp(min=0))
    gathered.index_fill_(dim, (index == PADDING).nonzero().flatten(), 0.0)
    return nn.Parameter(gathered, requires_grad=source.requires_grad)
