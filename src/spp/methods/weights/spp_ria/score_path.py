"""A path that the RIA scores of mini-batches drive: V += alpha (S_b - Gamma), Gamma = shrink(V, lambda).

Until a weight enters the support its Gamma is 0, so V only adds up scores, and the time of entry does not depend on any
other weight. With S_b = RI_ij f_bj / m_b, where f_bj = ||x_j||^a in mini-batch b and m_b is the mean of RI_ij f_bj over
the weights, weight (i, j) enters when F_j(t) = sum of f_bj / m_b up to time t reaches lambda / (alpha RI_ij), with the
mini-batches in turn, again and again. So its entry is found by a look into F, and no step has to be taken.
"""

import torch
from torch import Tensor

LAMBDA = 1.0
ALPHA = 0.01
"""Threshold and step of V; they scale the time alone."""


def entry_times(importance: Tensor, batch_norms: Tensor, exponent: float) -> Tensor:
    """Time at which each weight enters the support, in steps, continuous, so without ties among unequal scores.

    Args:
        importance: RI, (out, in), not negative.
        batch_norms: (num_batches, in), L2 norms of the input's features in each mini-batch.
        exponent: a.

    Returns: (out, in) float64; infinity where the scores are 0.
    """
    importance, factors = importance.double(), batch_norms.double() ** exponent
    means = (factors @ importance.mean(0)) / importance.shape[1]
    factors = factors / means.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    cumulated = torch.cat([torch.zeros_like(factors[:1]), factors.cumsum(0)])
    per_turn = cumulated[-1]
    wanted = LAMBDA / (ALPHA * importance)
    turns = (wanted / per_turn).floor()
    # What is left to reach within the last turn, and the step in which it is.
    rest = torch.where(turns.isfinite(), wanted - turns * per_turn, torch.zeros_like(wanted)).clamp(min=0)
    step = torch.searchsorted(cumulated[1:].T.contiguous(), rest.T.contiguous()).T.clamp(max=len(factors) - 1)
    gained = factors.gather(0, step)
    part = ((rest - cumulated.gather(0, step)) / gained).nan_to_num(0.0)
    return turns * len(factors) + step + part
