"""The order of the inputs in which an N:M mask retains the most (Zhang et al. 2024, RIA's channel permutation).

A heuristic deals out the columns by importance, so that every group holds important and unimportant ones. Then, slot by
slot, the columns in that slot of all groups are assigned anew by a linear sum assignment. In a row, exchanging the
column in the slot of group b for x changes what the group retains to const_b + max(t_b, x), where t_b is the N-th
largest of its other columns. As max(t, x) = (t + x + |t - x|) / 2 and every t_b and x_j counts once in any assignment,
the scores to assign by are the L1 distances between t_b and x_j over all rows: exact, without a sort per pair.

A permutation p (in,) says that column i of the permuted matrix is column p[i]: `score[:, p]`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spp.sparsity.pattern import Pattern, keep_largest

_MAX_PASSES = 5
"""Passes over all slots; each stops the search that gains nothing."""
_MIN_GAIN = 1e-4
"""Gain of a pass, as a share of what is retained, below which another one is not worth its time."""
_ROWS_AT_ONCE = 1024
"""Rows of which distances are taken at once, to bound the copies."""


@dataclass(frozen=True)
class TiedHeads:
    """Where an input is made by the values of an attention, so that an order of it folds into their rows.

    Attributes:
        num_groups: key-value heads.
        repeats: query heads of each, which read the same values; the order within them is the same.
    """

    num_groups: int
    repeats: int = 1


def retained_score(score: Tensor, permutation: Tensor, keep: int, of: int) -> float:
    """Sum of the scores that an N:M mask keeps in this order, in float64."""
    permuted = score[:, permutation]
    kept = keep_largest(permuted, Pattern(keep=keep, of=of))
    return float((permuted.double() * kept).sum())


def find_permutation(score: Tensor, keep: int, of: int, kind: str, heads: TiedHeads | None = None) -> Tensor:
    """An order of the inputs that retains at least what the order that is there does.

    Args:
        score: (out, in), not negative; the rows of all linears that read the input.
        keep: N.
        of: M; divides the inputs, and those of a head where there are heads.
        kind: heuristic or assignment.
        heads: the order stays within heads, and is the same for the query heads of a group.

    Returns: (in,) int64.

    Raises:
        ValueError: the width of a head is no multiple of M.
    """
    if heads is None:
        return _find(score, keep, of, kind)
    num_heads = heads.num_groups * heads.repeats
    size = score.shape[1] // num_heads
    if score.shape[1] != size * num_heads or size % of != 0:
        raise ValueError(
            f"heads: {num_heads} heads of {score.shape[1]} inputs are not allowed with of={of}; allowed: heads whose "
            f"width is a multiple of {of}; use permutation=none"
        )
    by_head = score.view(score.shape[0], heads.num_groups, heads.repeats, size)
    within = [_find(by_head[:, group].reshape(-1, size), keep, of, kind) for group in range(heads.num_groups)]
    starts = torch.arange(num_heads, device=score.device)[:, None] * size
    return (starts + torch.stack(within).repeat_interleave(heads.repeats, dim=0)).reshape(-1)


def value_rows(permutation: Tensor, heads: TiedHeads) -> Tensor:
    """The order of the rows of the values into which the order of their consumer's inputs folds.

    Args:
        permutation: what `find_permutation` gave with these heads.
        heads: of the attention.

    Returns: (num_groups * head size,) int64.
    """
    by_head = permutation.view(heads.num_groups, heads.repeats, -1)[:, 0]
    size = by_head.shape[1]
    starts = torch.arange(heads.num_groups, device=permutation.device)[:, None]
    return (by_head - starts * size * (heads.repeats - 1)).reshape(-1)


def _find(score: Tensor, keep: int, of: int, kind: str) -> Tensor:
    identity = torch.arange(score.shape[1], device=score.device)
    dealt = deal_columns(score, of)
    starts = {retained_score(score, order, keep, of): order for order in (dealt, identity)}
    best = max(starts)
    order = starts[best]
    if kind == "heuristic":
        return order
    for _ in range(_MAX_PASSES):
        before = best
        for slot in range(of):
            order = _assign_slot(score, order, keep, of, slot)
        best = retained_score(score, order, keep, of)
        if best - before <= _MIN_GAIN * best:
            break
    return order


def deal_columns(score: Tensor, of: int) -> Tensor:
    """RIA's heuristic: columns in ascending importance, cut into M parts of which each gives every group one column,
    the odd parts in reverse."""
    parts = score.sum(0).argsort(stable=True).view(of, -1)
    return torch.stack([part.flip(0) if number % 2 else part for number, part in enumerate(parts)], dim=1).reshape(-1)


def _assign_slot(score: Tensor, order: Tensor, keep: int, of: int, slot: int) -> Tensor:
    """The order after the columns in one slot of all groups have been assigned anew."""
    # Here, because this module is loaded by stages that assign nothing.
    from scipy.optimize import linear_sum_assignment

    groups = order.view(-1, of)
    others = groups[:, [number for number in range(of) if number != slot]]
    gains = slot_gains(score, others, groups[:, slot], keep).cpu().numpy()
    # Rows come back sorted: group b gets the column that is in this slot of group chosen[b].
    _, chosen = linear_sum_assignment(gains, maximize=True)
    assigned = groups.clone()
    assigned[:, slot] = groups[torch.from_numpy(chosen).to(order.device), slot]
    return assigned.view(-1)


def slot_gains(score: Tensor, others: Tensor, candidates: Tensor, keep: int) -> Tensor:
    """How much each group gains by each candidate, up to terms that are equal for all assignments.

    Args:
        score: (out, in).
        others: (num_groups, M - 1), the columns that stay.
        candidates: (num_groups,), the columns to assign.
        keep: N.

    Returns: (num_groups, num_groups), group by candidate.
    """
    total = torch.zeros(len(others), len(candidates), device=score.device)
    for rows in torch.split(score.float(), _ROWS_AT_ONCE):
        thresholds = rows[:, others].topk(keep, dim=2).values[..., -1]
        total += torch.cdist(thresholds.T.contiguous(), rows[:, candidates].T.contiguous(), p=1.0)
    return total
