"""xNES: a Gaussian follows the natural gradient of the expected rank of what is drawn from it.

Source: Glasmachers, Schaul, Yi, Wierstra, Schmidhuber: Exponential Natural Evolution Strategies, GECCO 2010, with its
number of individuals, utilities and step sizes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def minimise(
    fitness: Callable[[Tensor], float], start: Tensor, num_evaluations: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The best of what was drawn, and its fitness.

    Args:
        fitness: what is to be small, of a point (n,).
        start: mean of the Gaussian at first, (n,) float64; its covariance is the identity.
        num_evaluations: points that are drawn; 1 or more.
        generator: draws them.
    """
    dim = len(start)
    num_individuals = 4 + math.floor(3 * math.log(dim))
    utilities = (math.log(num_individuals / 2 + 1) - torch.arange(1, num_individuals + 1).double().log()).clamp(min=0)
    utilities = utilities / utilities.sum() - 1 / num_individuals
    step_of_factor = 0.6 * (3 + math.log(dim)) / (dim * math.sqrt(dim))
    mean, factor = start.clone(), torch.eye(dim, dtype=torch.float64)
    best, best_value = start, math.inf
    for first in range(0, num_evaluations, num_individuals):
        drawn = torch.randn(num_individuals, dim, generator=generator, dtype=torch.float64)
        points = mean + drawn @ factor.T
        values = [fitness(point) for point in points[: num_evaluations - first]]
        for point, value in zip(points, values, strict=False):
            if value < best_value:
                best, best_value = point, value
        if len(values) < num_individuals:
            break
        ranked = drawn[torch.tensor(values).argsort(stable=True)]
        by_mean = utilities @ ranked
        by_factor = (utilities[:, None] * ranked).T @ ranked - utilities.sum() * torch.eye(dim, dtype=torch.float64)
        mean = mean + factor @ by_mean
        factor = factor @ torch.linalg.matrix_exp(step_of_factor / 2 * by_factor)
    return best, best_value
