"""The axes of one-shot pruning beside the method, free of each other; without torch, because planning reads them."""

from dataclasses import dataclass

from spp.config import Config, require

GROUPS = ("row", "matrix", "block")
PERMUTATIONS = ("none", "heuristic", "assignment")
UPDATES = ("none", "obs", "least_squares")
ALLOCATIONS = ("uniform", "fisher", "owl")
BLOCK_SIZE = 128
"""Columns of a block of weights that compete with each other, and of a sweep; the number of SparseGPT's release."""


@dataclass(frozen=True, kw_only=True)
class SparsityConfig(Config):
    """Which weights compete, how many go, in which order of columns, and what becomes of those that stay."""

    sparsity: float = 0.5
    """Share of the weights that is removed; with `keep` and `of` these say it."""
    keep: int | None = None
    """N of N:M: weights that stay of every `of` consecutive inputs."""
    of: int | None = None
    """M of N:M: consecutive inputs of a group."""
    group: str | None = None
    """Weights that compete with each other: row (one output), matrix, or block (128 columns of all rows); null: as the
    method was published."""
    permutation: str = "none"
    """Order of the inputs in which N:M holds: none, heuristic (by importance) or assignment (heuristic, then improved
    by linear sum assignments)."""
    shared_permutation: bool = True
    """Whether the linears of one input have one order, which a network can be saved with; else each has its own."""
    update: str | None = None
    """What becomes of the kept weights: none, obs (SparseGPT's sweep) or least_squares; null: as the method was
    published."""
    allocation: str = "uniform"
    """Shares of the layers: uniform, fisher (equal marginal loss) or owl (more for layers with few outliers)."""
    allocation_cap: float = 0.1
    """A layer's share differs from `sparsity` by at most this."""
    damping: float = 0.01
    """Added to the diagonal of the Gram matrix, as a fraction of its mean, before weights are updated."""
    shrinkage: float | None = None
    """a in (1 - a) G + a diag(G), the Gram matrix that masks and updates see; null: as the method proposes."""

    def __post_init__(self) -> None:
        require(0 <= self.sparsity < 1, "sparsity", self.sparsity, "a share removed, in [0, 1)", "use 0.5")
        pair, is_pair = (self.keep, self.of), self.keep is not None and self.of is not None
        require(
            pair == (None, None) or (is_pair and 0 < (self.keep or 0) < (self.of or 0)),
            "keep",
            pair,
            "keep and of with 0 < keep < of, or neither",
            "use keep=2 of=4",
        )
        self._require_one_of("group", (None, *GROUPS))
        self._require_one_of("permutation", PERMUTATIONS)
        self._require_one_of("update", (None, *UPDATES))
        self._require_one_of("allocation", ALLOCATIONS)
        require(
            self.permutation == "none" or is_pair,
            "permutation",
            self.permutation,
            "none where the pattern is not N:M, as an order of the inputs changes nothing there",
            "set keep and of, or use permutation=none",
        )
        require(
            self.allocation == "uniform" or not is_pair,
            "allocation",
            self.allocation,
            "uniform where the pattern is N:M, as that fixes the share of every layer",
            "use allocation=uniform",
        )
        cap, shrinkage = self.allocation_cap, self.shrinkage
        require(0 <= cap < 1, "allocation_cap", cap, "a difference of shares, in [0, 1)", "use 0.1")
        require(0 <= self.damping <= 1, "damping", self.damping, "[0, 1]", "use 0.01")
        require(shrinkage is None or 0 <= shrinkage <= 1, "shrinkage", shrinkage, "[0, 1], or null", "use 0")

    def _require_one_of(self, name: str, allowed: tuple[str | None, ...]) -> None:
        value = getattr(self, name)
        words = ", ".join("null" if word is None else word for word in allowed)
        require(value in allowed, name, value, words, f"use {allowed[0] or allowed[1]}")

    @property
    def share(self) -> float:
        """Share of the weights that is removed."""
        if self.keep is not None and self.of is not None:
            return 1 - self.keep / self.of
        return self.sparsity
