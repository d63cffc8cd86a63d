"""LEAP (arXiv 2105.14636): learned keep ratios under a regulariser on the remaining share, with adaptive strength.

As released (version 1; of version 2 no code is public): a structure keeps the ceil(k n) entries of the largest scores,
k = sigmoid(sigma / T); sigma / T starts at 10, and T = 1. The backward pass is straight-through: a score gets the
gradient of its mask, sigma / T the sum of gradient times mask. The loss also has lambda (R - R_t)^2 while the remaining
share R is above the target R_t, with lambda = max(lambda_max (R - R_t)^2 / (1 - R_t)^2, lambda_min). Weights train
along. The step sizes of sigmas and scores rise linearly from 0 over the warm-up and then fall linearly to 0, as the
released scheduler has them for all parameters (a warm-up of 11000 steps, .05 of its 20 epochs of QQP). T plays a part
in the second version, of which no more than that is known; as both parts of a sigma's gradient are those of sigma / T,
over T, and the default step size is in units of T, it changes nothing here but the numbers.

Clipping: the released code clips the norm of all gradients together, of weights, scores and sigmas (at 1). Here
`search.clip_grad` is that of the weights alone; scores and sigmas are moved by Adam, which takes no notice of a common
factor of all gradients, and are not clipped.

Mended: scores start with tiny values, not all equal; lambda does not fall to 10 close to the target; R comes from the
model's real prices.

Granularities: structured means our units; head (the first step of the released code) whole heads, queries, keys and
values of one under one mask, and the rows of fc1; unstructured the single weights of each linear map that holds units,
with a sigma per map; row and block the same with one score for a row of a map, or for each of its tiles of 16 x 16;
hybrid the product of structured and unstructured, with a sigma per pair and per map. The released head/row step also
takes rows of the projection and of fc2, which write into the residual stream and cannot be cut out: here those are in
row alone. Its second step, blocks of what the first has left, is not made.

Ours: once R is within `tolerance` of R_t, and at `freeze_at` of the steps in any case, the ratios freeze: all are
shifted together until the choice fills the budget, and the rest of the search trains with that choice. Single weights,
rows and blocks save no multiply-adds: unstructured, row, block and hybrid count the parameters that are not zero, and
take only budgets of kind params. Their biases are not pruned. Distillation is the recipe's, as of every method:
search.distill_weight=0.9, distill_temperature=2, distill_hidden=1 and distill_attention=1 are the released ones. What
the released code calls scores of attention are weights behind the softmax and its dropout; here dropout is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import later, require
from spp.methods.method import MethodConfig

GRANULARITIES = ("structured", "head", "unstructured", "row", "block", "hybrid")
BLOCK = 16
"""Rows and columns of a tile."""


@dataclass(frozen=True, kw_only=True)
class LEAPConfig(MethodConfig):
    """Settings of the search."""

    kinds: ClassVar[tuple[str, ...]] = ("budget",)

    name: str = "leap"
    granularity: str = "structured"
    """What is pruned: structured (units), head (whole heads, MLP units), unstructured (weights), row or block (of each
    map rows, or tiles of 16 x 16) or hybrid (units and weights)."""
    temperature: float = 1.0
    """T: how far a sigma must move for the same change of its keep ratio."""
    lr: float | None = None
    """Largest step size of the sigmas; null: T times .01, or T times 40 / steps where that is more."""
    score_lr: float = 0.01
    """Largest step size of the scores."""
    warmup_share: float = later(0.05, neutral=0.0)
    """Share of the steps over which both step sizes rise; over the others they fall to 0."""
    lambda_max: float = 20000.0
    """Strength of the regulariser at R = 1."""
    lambda_min: float = 50.0
    """Least strength of the regulariser."""
    tolerance: float = 1e-3
    """Distance of R from R_t at which the ratios freeze."""
    freeze_at: float = 0.8
    """Share of the steps at which the ratios freeze in any case."""
    min_units: int = 1
    """Units that every pair keeps at least."""
    released_quirks: bool = False
    """Scores start all equal; the strength falls to 10 where (R - R_t)^2 < 3e-4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = ", ".join(GRANULARITIES)
        require(self.granularity in GRANULARITIES, "granularity", self.granularity, allowed, "use structured")
        for name in ("temperature", "score_lr", "lambda_max", "lambda_min", "tolerance"):
            value = getattr(self, name)
            require(value > 0, name, value, "a positive number", f"use {getattr(type(self), name):g}")
        require(self.lr is None or self.lr > 0, "lr", self.lr, "a positive number, or null", "use null")
        warmup = self.warmup_share
        require(0 <= warmup < 1, "warmup_share", warmup, "a number in [0, 1)", "use 0.05")
        require(0 < self.freeze_at <= 1, "freeze_at", self.freeze_at, "(0, 1]", "use 0.8")

    @property
    def needs_heads(self) -> bool:
        return self.granularity == "head"

    @property
    def num_revisions(self) -> int:
        """1: the gradient of the task is that of sigma / T, over T; step sizes rise and fall."""
        return 1


CONFIG = LEAPConfig
