"""Relative importance of weights (Zhang et al. 2024, "Plug-and-Play", RIA)."""

import torch
from torch import Tensor


def relative_importance(weight: Tensor) -> Tensor:
    """RI: |w_ij| / sum_k |w_kj| + |w_ij| / sum_k |w_ik|, in fp32 or fp64.

    In half precision a quarter of the quotients of a wide matrix would be subnormal.

    Args:
        weight: (out, in).

    Returns: (out, in); 0 where a whole row or column is.
    """
    size = weight.abs()
    tiny = torch.finfo(size.dtype).tiny
    return size / size.sum(0).clamp(min=tiny) + size / size.sum(1, keepdim=True).clamp(min=tiny)


def relative_importance_of_activations(weight: Tensor, norms: Tensor, exponent: float) -> Tensor:
    """RIA: RI_ij ||x_j||^a.

    Args:
        weight: (out, in).
        norms: (in,), L2 norms of the input's features.
        exponent: a.
    """
    return relative_importance(weight) * norms**exponent
