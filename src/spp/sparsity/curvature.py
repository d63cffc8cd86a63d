"""The Gram matrix of one input, made ready once for all linears that read it: shrunk, damped, factorised.

The loss of a change D of the weights (out, in) is 1/2 tr(D G D^T): half the squared error of the outputs over all
tokens.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spp.config import require

MAX_DAMPING = 1.0
"""Fraction of the mean diagonal beyond which a matrix that cannot be factorised is refused."""
_FIRST_DAMPING = 1e-3
"""What follows on no damping at all."""
_REVERSED_AT_ONCE = 2**20
"""Numbers that are copied at once where a matrix is turned around."""
_SMALLEST_BLOCK = 256
"""Below this size a triangular matrix is inverted at once."""


@dataclass(eq=False)
class Curvature:
    """G of one input.

    Attributes:
        gram: (in, in) fp32 or fp64, symmetric; already shrunk, see `shrink`.
        damping: fraction of the mean diagonal that is added to the diagonal before a factorisation.
        name: of the linears that read the input, for messages.
        damping_used: that of the factorisation, larger where the first tries failed.
    """

    gram: Tensor
    damping: float = 0.01
    name: str = "gram"
    damping_used: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.damping <= MAX_DAMPING, "damping", self.damping, "[0, 1]", "use 0.01")

    @cached_property
    def is_dead(self) -> Tensor:
        """Which inputs were 0 at every token, (in,) bool."""
        return self.gram.diagonal() == 0

    @cached_property
    def mean_diagonal(self) -> float:
        """Mean of the diagonal; 1 where all of it is 0."""
        return float(self.gram.diagonal().mean()) or 1.0

    @cached_property
    def inverse_factor(self) -> Tensor:
        """The upper triangular U with H^-1 = U^T U, where H is G after damping, (in, in).

        A factorisation that fails is tried again with ten times the damping, with a warning, up to MAX_DAMPING.

        Raises:
            ValueError: it fails even then; the message has the names of the linears.
        """
        self.damping_used = self.damping
        while True:
            # H = R R^T with an upper R, by a Cholesky factorisation from the last column to the first; then
            # H^-1 = R^-T R^-1. That saves one of the published three factorisations, and all of it is done in the place
            # of one matrix: of Llama-2-7B's widest input each further one takes 0.5 GB.
            matrix = self._damped()
            _reverse(matrix)
            info = torch.zeros((), dtype=torch.int32, device=matrix.device)
            torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, info))
            if int(info) == 0 and bool(matrix.diagonal().isfinite().all()):
                _reverse(matrix)
                upper = matrix.mT
                _invert_upper(upper)
                return upper
            self._damp_more()

    def _damped(self) -> Tensor:
        matrix = self.gram.clone()
        diagonal = matrix.diagonal()
        diagonal += self.damping_used * self.mean_diagonal
        diagonal[self.is_dead] = self.mean_diagonal
        return matrix

    def _damp_more(self) -> None:
        if self.damping_used >= MAX_DAMPING:
            raise ValueError(
                f"{self.name}: the Gram matrix of its input cannot be factorised with damping={self.damping_used:g}; "
                "allowed: a positive definite matrix; use more calibration tokens, or update=none"
            )
        failed = self.damping_used
        self.damping_used = min(MAX_DAMPING, max(_FIRST_DAMPING, 10 * failed))
        warnings.warn(
            f"{self.name}: the Gram matrix of its input could not be factorised with damping={failed:g}; "
            f"damping={self.damping_used:g} is tried",
            RuntimeWarning,
            stacklevel=4,
        )

    @cached_property
    def norms(self) -> Tensor:
        """Root of the diagonal, 1 at dead inputs, (in,): what makes the diagonal of `eigen` 1."""
        return self.gram.diagonal().sqrt().masked_fill(self.is_dead, 1.0)

    @cached_property
    def correlation(self) -> Tensor:
        """C = G / (n n^T) with n = `norms`, (in, in)."""
        return self.gram / self.norms / self.norms[:, None]

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (in,), none below 0, and eigenvectors (in, in) in columns of `correlation`."""
        values, vectors = torch.linalg.eigh(self.correlation)
        return values.clamp(min=0), vectors

    def permuted(self, permutation: Tensor) -> "Curvature":
        """G of the inputs in another order."""
        gram = self.gram[permutation[:, None], permutation]
        return Curvature(gram, self.damping, self.name)

    def error(self, change: Tensor) -> float:
        """tr(D G D^T) of a change D (out, in)."""
        return float(torch.einsum("oc,oc->", change @ self.gram, change))


def shrink(gram: Tensor, shrinkage: float) -> Tensor:
    """(1 - a) G + a diag(G): what of the correlations is due to the calibration text counts less."""
    if shrinkage == 0:
        return gram
    shrunk = (1 - shrinkage) * gram
    shrunk.diagonal().copy_(gram.diagonal())
    return shrunk


def _reverse(matrix: Tensor) -> None:
    """Turn the order of rows and of columns around, in place: that of all numbers, as they follow each other."""
    numbers = matrix.view(-1)
    total, half = len(numbers), len(numbers) // 2
    for start in range(0, half, _REVERSED_AT_ONCE):
        stop = min(start + _REVERSED_AT_ONCE, half)
        front, back = numbers[start:stop], numbers[total - stop : total - start]
        kept = front.flip(0)
        front.copy_(back.flip(0))
        back.copy_(kept)


def _invert_upper(upper: Tensor) -> None:
    """Invert [[A, B], [0, D]], upper triangular, in place and by halves: [[A^-1, -A^-1 B D^-1], [0, D^-1]]."""
    size = len(upper)
    if size <= _SMALLEST_BLOCK:
        identity = torch.eye(size, dtype=upper.dtype, device=upper.device)
        upper.copy_(torch.linalg.solve_triangular(upper, identity, upper=True))
        return
    half = size // 2
    first, last, corner = upper[:half, :half], upper[half:, half:], upper[:half, half:]
    _invert_upper(first)
    _invert_upper(last)
    corner.copy_(-(first @ corner @ last))
