"""Which weights stay: exact counts among those that compete.

Of equal scores the one with the smaller index goes first, as in a stable ascending sort, which is how Wanda's release
chooses. For a matrix the index runs along rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spp.config import require
from spp.sparsity.config import BLOCK_SIZE, GROUPS, SparsityConfig

_ROUNDING = 1e-6
"""So that 0.29 of 100 weights are 29, although the product is below that in floating point."""
ROWS_AT_ONCE = 256
"""Rows that are chosen apart are worked on in as many at a time, so that what belongs to them stays in a cache."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """How many weights go, and among which they compete.

    Attributes:
        sparsity: share removed of each group; of n weights the whole part of sparsity * n goes.
        group: row, matrix or block (`block_size` columns of all rows).
        keep: N of N:M, which then stands in the place of `sparsity` and `group`; None for an unstructured pattern.
        of: M of N:M.
        block_size: columns of a block.
    """

    sparsity: float = 0.5
    group: str = "row"
    keep: int | None = None
    of: int | None = None
    block_size: int = BLOCK_SIZE

    def __post_init__(self) -> None:
        require(self.group in GROUPS, "group", self.group, ", ".join(GROUPS), "use row")
        require(0 <= self.sparsity < 1, "sparsity", self.sparsity, "a share removed, in [0, 1)", "use 0.5")

    @classmethod
    def from_config(cls, axes: SparsityConfig, sparsity: float | None = None) -> "Pattern":
        """The pattern that the axes ask for, with a share of its own where one is given."""
        share = axes.share if sparsity is None else sparsity
        return cls(sparsity=share, group=axes.group or "row", keep=axes.keep, of=axes.of)

    @property
    def is_by_row(self) -> bool:
        """Whether what competes lies within a row, so that rows can be chosen apart."""
        return self.ratio is not None or self.group == "row"

    @property
    def ratio(self) -> tuple[int, int] | None:
        """(N, M) of an N:M pattern."""
        return None if self.keep is None or self.of is None else (self.keep, self.of)

    def check(self, name: str, num_inputs: int) -> None:
        """Refuse a linear whose inputs are no whole number of groups.

        Raises:
            ValueError: one line with the name of the linear.
        """
        if self.of is not None and num_inputs % self.of != 0:
            raise ValueError(
                f"{name}: its {num_inputs} inputs are not allowed with of={self.of}; allowed: a multiple of {self.of}; "
                "use another pattern"
            )


def num_removed(num_weights: int, sparsity: float) -> int:
    """The whole part of sparsity * num_weights."""
    return int(num_weights * sparsity + _ROUNDING)


def keep_largest(score: Tensor, pattern: Pattern) -> Tensor:
    """The mask that keeps the largest scores.

    Args:
        score: (out, in), finite.
        pattern: which compete, and how many go.

    Returns: (out, in) bool, True where the weight stays.
    """
    pattern.check("score", score.shape[1])
    if (ratio := pattern.ratio) is not None:
        return _keep_of_consecutive(score, *ratio)
    if pattern.group == "row":
        return ~_smallest(score, num_removed(score.shape[1], pattern.sparsity))
    if pattern.group == "matrix":
        flat = score.reshape(1, -1)
        return ~_smallest(flat, num_removed(flat.shape[1], pattern.sparsity)).view(score.shape)
    whole = Pattern(sparsity=pattern.sparsity, group="matrix")
    return torch.cat([keep_largest(block, whole) for block in torch.split(score, pattern.block_size, dim=1)], dim=1)


def _smallest(score: Tensor, num: int) -> Tensor:
    """Marks exactly `num` entries of every row."""
    if num == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = kth_smallest(score, num)
    marked = score <= threshold
    # Over everything a count takes a seventh of the time of one along a dimension.
    counts = marked.count_nonzero()[None] if len(marked) == 1 else marked.sum(1)
    with_ties = (counts > num).nonzero()[:, 0]
    if len(with_ties):
        score, threshold = score[with_ties], threshold[with_ties]
        below, ties = score < threshold, score == threshold
        marked[with_ties] = below | (ties & (ties.cumsum(1) <= num - below.sum(1, keepdim=True)))
    return marked


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of every row, (rows, 1).

    Args:
        values: (rows, num), fp32 or fp64.
        k: from 1 to num.
    """
    if values.device.type != "cpu":
        return values.kthvalue(k, dim=1, keepdim=True).values
    # numpy's selection is vectorised: twelve times as fast as torch's.
    return torch.from_numpy(np.partition(values.detach().numpy(), k - 1, axis=1)[:, k - 1, None])


def _keep_of_consecutive(score: Tensor, keep: int, of: int) -> Tensor:
    # A comparison of each with each other is several times faster than a sort of so few.
    parts = score.reshape(score.shape[0], -1, of).unbind(2)
    num_better = [torch.zeros(parts[0].shape, dtype=torch.int16, device=score.device) for _ in parts]
    for first in range(of):
        for second in range(first + 1, of):
            second_wins = parts[second] >= parts[first]
            num_better[first] += second_wins
            num_better[second] += ~second_wins
    return torch.stack([num < keep for num in num_better], dim=2).view(score.shape)
