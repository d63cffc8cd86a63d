"""Linears with correlated, heavy-tailed inputs, as language models have them."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from spp.sparsity.pattern import Pattern
from spp.sparsity.problem import LinearProblem, prepare_input
from spp.sparsity.statistics import InputStats


@dataclass(frozen=True)
class Linear:
    """Weights (out, in) and calibration tokens (tokens, in), both fp64."""

    weight: Tensor
    x: Tensor

    @property
    def gram(self) -> Tensor:
        return self.x.T @ self.x

    def stats(self, needs=("norms", "gram", "batches"), num_batches: int = 1) -> InputStats:
        stats = InputStats(self.x.shape[1], needs)
        for batch in self.x.chunk(num_batches):
            stats.add(batch)
        return stats

    def problem(self, damping: float = 0.01, **pattern) -> LinearProblem:
        known = prepare_input("fc", self.weight, self.stats(), damping)
        return LinearProblem(self.weight, known, Pattern(**pattern))

    def loss(self, weight: Tensor) -> float:
        """Squared error of the outputs over the tokens, from the tokens themselves."""
        return float((self.x @ (self.weight - weight.double()).T).square().sum())


def make_linear(num_out: int = 24, num_in: int = 32, num_tokens: int = 200, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = normal(num_in, num_in) / num_in**0.5 + torch.eye(num_in, dtype=torch.float64)
    x = (normal(num_tokens, num_in) @ mixing) * normal(num_in).exp()
    return Linear(normal(num_out, num_in), x.float().double())


@pytest.fixture
def linear():
    """`linear(num_out, num_in, num_tokens, seed)`: one such linear."""
    return make_linear
