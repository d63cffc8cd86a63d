"""Mask and update of one linear: `spp.choose_mask` and `spp.update_weights`."""

from typing import Any

import torch
from torch import Tensor

from spp.config import require
from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.sparsity.config import SparsityConfig
from spp.sparsity.problem import check_finite, prepare_input, working_type
from spp.sparsity.prune_layer import prune_linears
from spp.sparsity.statistics import InputStats
from spp.sparsity.update import update_kept

PUBLISHED_DAMPING = 0.01
"""SparseGPT's."""


def choose_mask(
    weight: Tensor,
    stats: InputStats | None = None,
    *,
    method: str,
    group: str = "row",
    sparsity: float = 0.5,
    keep: int | None = None,
    of: int | None = None,
    permutation: str = "none",
    **settings: Any,
) -> Tensor:
    """Which weights of a linear stay.

    Args:
        weight: (out, in), any floating type.
        stats: of the input; None for magnitude and ri.
        method: magnitude, ri, wanda, ria, sparsegpt or spp_ria.
        group: weights that compete with each other: row, matrix, or block (128 columns of all rows).
        sparsity: share removed; exact, of equal scores the one with the smaller index goes first.
        keep: N of N:M, with `of`; these then say what is removed.
        of: M of N:M, consecutive inputs.
        permutation: none, heuristic or assignment; N:M then holds in an order of the inputs.
        settings: of the method, such as a=0.5 for ria.

    Returns: (out, in) bool, True where the weight stays.

    Raises:
        ValueError: one line that names the argument, the value, what is allowed and the remedy.
    """
    config = read_weight_method({"name": method, **settings})
    axes = SparsityConfig.read(
        {"group": group, "sparsity": sparsity, "keep": keep, "of": of, "permutation": permutation, "update": "none"},
        "",
    )
    chooser = load_weight_method(config)
    given = {"input": stats} if stats is not None else {}
    return prune_linears({"weight": weight}, given, {"weight": "input"}, chooser, config.resolve(axes))["weight"].mask


@torch.no_grad()
def update_weights(
    weight: Tensor, mask: Tensor, stats: InputStats, *, how: str, damping: float | None = None
) -> Tensor:
    """The kept weights of a linear, moved so that its outputs stay close to the dense ones.

    Args:
        weight: (out, in), any floating type.
        mask: (out, in) bool, True where the weight stays.
        stats: of the input, with its Gram matrix.
        how: obs (SparseGPT's sweep with this mask) or least_squares (the smallest error of the outputs).
        damping: added to the diagonal of the Gram matrix, as a fraction of its mean; None: 0.01 for obs, as published,
            and 0 for least_squares, which then leaves no gradient on the kept weights.

    Returns: (out, in), of the type of `weight`; zeros where not mask.

    Raises:
        ValueError: one line that names the argument, the value, what is allowed and the remedy.
    """
    require(mask.dtype == torch.bool, "mask", mask.dtype, "torch.bool, True where the weight stays", "use mask.bool()")
    shapes = tuple(mask.shape), tuple(weight.shape)
    require(shapes[0] == shapes[1], "mask", shapes[0], f"the shape {shapes[1]} of the weight", "check the linear")
    if damping is None:
        damping = PUBLISHED_DAMPING if how == "obs" else 0.0
    known = prepare_input("weight", weight, stats, damping)
    require(known is not None, "stats", stats, "InputStats with tokens", "add calibration inputs first")
    assert known is not None
    check_finite("weight", "its entries", weight, remedy="look at where it comes from")
    updated = update_kept(weight.to(working_type(weight)), mask.to(weight.device), known, how)
    return updated.to(weight.dtype)
