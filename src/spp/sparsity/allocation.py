"""How much goes from which layer, where not the same goes from all.

* owl: layers with more outliers keep more (Yin et al. 2024, "Outlier Weighed Layerwise Sparsity"): what a layer keeps
  lies above the mean by how much its share of outliers does, scaled to the cap.
* fisher: equal marginal loss. Removing weight w_ij adds about 1/2 E[d_i^2] ||x_j||^2 w_ij^2 to the training loss, where
  d_i is the gradient at output i: the diagonal of the Fisher matrix, factorised. Each layer gives up its cheapest
  weights first, and all stop at one price.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from spp.config import require
from spp.sparsity.config import ALLOCATIONS
from spp.sparsity.statistics import InputStats

OUTLIER_MULTIPLE = 5.0
"""A score above this many means is an outlier; OWL's M."""
NUM_LEVELS = 101
"""Shares removed, from 0 to 1, at which a layer's marginal loss is noted."""
_BISECTIONS = 100


def outlier_share(weight: Tensor, stats: InputStats, multiple: float = OUTLIER_MULTIPLE) -> float:
    """Share of a linear's weights whose Wanda score |w_ij| ||x_j|| is above `multiple` times the mean.

    Args:
        weight: (out, in).
        stats: of the input, with norms.
        multiple: how many means.
    """
    score = weight.float().abs() * stats.norms.to(weight.device)
    return float((score > multiple * score.mean()).float().mean())


def fisher_curve(weight: Tensor, stats: InputStats, gradient_squares: Tensor) -> Tensor:
    """The loss that the next weight adds, at each share removed of every row.

    Args:
        weight: (out, in).
        stats: of the input, with norms.
        gradient_squares: (out,), mean over tokens of the squared gradient of the loss at each output.

    Returns: (NUM_LEVELS,) float64, ascending: the mean over rows of the weights' prices. The curve of several linears
    is the mean of theirs, weighted by their sizes.
    """
    scale = stats.norms.to(weight.device) / max(1, stats.num_tokens) ** 0.5
    score = (weight.float() * scale).square().sort(dim=1).values
    levels = torch.linspace(0, score.shape[1] - 1, NUM_LEVELS, device=score.device).round().long()
    prices = score[:, levels].double() * gradient_squares.to(score.device, torch.float64)[:, None]
    curve: Tensor = prices.mean(0) / 2
    return curve.cpu()


def allocate(
    kind: str, figures: Mapping[str, float | Tensor], sizes: Mapping[str, int], sparsity: float, cap: float
) -> dict[str, float]:
    """The share that goes from each layer.

    Args:
        kind: uniform, owl or fisher.
        figures: by layer: for owl the share of outliers, for fisher the curve; of no meaning for uniform.
        sizes: weights of each layer.
        sparsity: mean share, weighted by the sizes; met up to rounding of floats.
        cap: how far a share may be from it.

    Returns: shares by layer, in the order of `sizes`.

    Raises:
        ValueError: no such kind, a layer without a figure, or one that is not finite.
    """
    require(kind in ALLOCATIONS, "allocation", kind, ", ".join(ALLOCATIONS), "use uniform")
    if kind == "uniform":
        return dict.fromkeys(sizes, sparsity)
    for name in sizes:
        figure = torch.as_tensor(figures[name] if name in figures else float("nan"))
        if not bool(figure.isfinite().all()):
            raise ValueError(
                f"allocation: {kind} has no finite figure of {name}; allowed: one for every layer; use uniform"
            )
    weights = torch.tensor(list(sizes.values()), dtype=torch.float64)
    low, high = max(0.0, sparsity - cap), min(1.0, sparsity + cap)
    if kind == "owl":
        outliers = torch.tensor([float(figures[name]) for name in sizes], dtype=torch.float64)
        spread = outliers - outliers.min()
        shares = sparsity - 2 * cap * spread / spread.max().clamp(min=torch.finfo(torch.float64).tiny)
    else:
        curves = torch.stack([torch.as_tensor(figures[name], dtype=torch.float64) for name in sizes])
        shares = _shares_at_equal_price(curves, weights, sparsity, low, high)
    return dict(zip(sizes, _with_mean(shares, weights, sparsity, low, high).tolist(), strict=True))


def _with_mean(shares: Tensor, weights: Tensor, mean: float, low: float, high: float) -> Tensor:
    """The shares moved by one number, and kept in bounds, so that their weighted mean is `mean`."""

    def moved(by: float) -> Tensor:
        return (shares + by).clamp(low, high)

    return moved(_bisect(lambda by: float((weights * moved(by)).sum() / weights.sum()) - mean, -2.0, 2.0))


def _shares_at_equal_price(curves: Tensor, weights: Tensor, mean: float, low: float, high: float) -> Tensor:
    """What each layer gives up below one price, which is such that the weighted mean is `mean`."""
    levels = np.linspace(0, 1, curves.shape[1])
    logarithms = curves.clamp(min=torch.finfo(torch.float64).tiny).log().numpy()

    def given_up(price: float) -> Tensor:
        shares = [np.interp(price, curve, levels, left=0.0, right=1.0) for curve in logarithms]
        return torch.tensor(shares, dtype=torch.float64).clamp(low, high)

    def excess(price: float) -> float:
        return float((weights * given_up(price)).sum() / weights.sum()) - mean

    return given_up(_bisect(excess, float(logarithms.min()) - 1, float(logarithms.max()) + 1))


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an ascending function passes 0."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
