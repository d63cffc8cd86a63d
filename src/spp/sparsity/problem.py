"""One linear as a method sees it: its weights, what is known of its input, and the pattern of its mask."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spp.sparsity.curvature import Curvature, shrink
from spp.sparsity.pattern import Pattern, keep_largest
from spp.sparsity.statistics import InputStats


@dataclass(eq=False)
class PreparedInput:
    """Statistics of one input in one order of its features, with what is computed from them once for all its linears.

    Attributes:
        stats: as collected.
        device: where the work is done.
        permutation: (in,) the order; None: as it is.
        damping: see Curvature.
        shrinkage: see `spp.sparsity.curvature.shrink`.
        name: of the linears, for messages.
        dtype: fp32, or fp64 for weights that are.
    """

    stats: InputStats
    device: torch.device
    permutation: Tensor | None = None
    damping: float = 0.01
    shrinkage: float = 0.0
    name: str = "stats"
    dtype: torch.dtype = torch.float32

    @cached_property
    def norms(self) -> Tensor:
        """L2 norm of every feature, (in,)."""
        return self._in_order(self.stats.norms)

    @cached_property
    def batch_norms(self) -> Tensor:
        """L2 norms of every feature in each mini-batch, (num_batches, in)."""
        return self._in_order(self.stats.batch_norms)

    @cached_property
    def curvature(self) -> Curvature:
        """The Gram matrix, shrunk."""
        gram = shrink(self.stats.gram.to(self.device, self.dtype), self.shrinkage)
        curvature = Curvature(gram, self.damping, self.name)
        return curvature if self.permutation is None else curvature.permuted(self.permutation)

    def permuted(self, permutation: Tensor) -> "PreparedInput":
        """The same in another order."""
        return PreparedInput(self.stats, self.device, permutation, self.damping, self.shrinkage, self.name, self.dtype)

    def _in_order(self, values: Tensor) -> Tensor:
        values = values.to(self.device, self.dtype)
        return values if self.permutation is None else values[..., self.permutation]


def working_type(weight: Tensor) -> torch.dtype:
    """fp64 for weights that are, else fp32."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def check_finite(name: str, what: str, *tensors: Tensor, remedy: str) -> None:
    """Refuse NaN and infinity in `what`, and propose `remedy`.

    Raises:
        ValueError: one line with the name of the linear, or of the linears of an input.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(f"{name}: {what} hold NaN or infinity; allowed: finite numbers; {remedy}")


def prepare_input(
    name: str, weight: Tensor, stats: InputStats | None, damping: float, shrinkage: float = 0.0
) -> PreparedInput | None:
    """The statistics of an input for the linears that read it.

    Args:
        name: of these linears, for messages.
        weight: of one of them, whose device and type the work has.
        stats: as collected; None where there are none.
        damping: see Curvature.
        shrinkage: see `spp.sparsity.curvature.shrink`.

    Raises:
        ValueError: they are not finite, or of another number of features.
    """
    if stats is None or stats.num_tokens == 0:
        return None
    if stats.num_features != weight.shape[1]:
        raise ValueError(
            f"{name}: statistics of {stats.num_features} features are not allowed; allowed: {weight.shape[1]}, its "
            "inputs; give it those of its own input"
        )
    seen = [stats.gram] if "gram" in stats.needs else []
    seen += [stats.norms] if stats.needs & {"norms", "batches"} else []
    check_finite(name, "the statistics of its input", *seen, remedy="look at what comes before this linear")
    return PreparedInput(stats, weight.device, None, damping, shrinkage, name, working_type(weight))


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """One linear.

    Attributes:
        weight: (out, in), fp32 or fp64, in the order of the input's features.
        input: its input; None where the method needs none.
        pattern: of the mask.
    """

    weight: Tensor
    input: PreparedInput | None
    pattern: Pattern

    @property
    def known_input(self) -> PreparedInput:
        """The statistics of the input.

        Raises:
            ValueError: there are none.
        """
        if self.input is None:
            raise ValueError("stats: None is not allowed with this method; allowed: InputStats; collect them first")
        return self.input


@dataclass(frozen=True)
class Choice:
    """What a method chose.

    Attributes:
        mask: (out, in) bool, True where the weight stays.
        weight: (out, in), where choosing and updating are one, else None.
        figures: numbers for the record.
    """

    mask: Tensor
    weight: Tensor | None = None
    figures: Mapping[str, float] | None = None


class MaskChooser(ABC):
    """What the walk over a layer asks of a method; as it stands the weights of the largest scores are kept."""

    needs: frozenset[str] = frozenset()
    """Statistics of inputs that it needs, of spp.sparsity.statistics.NEEDS."""

    @abstractmethod
    def score(self, problem: LinearProblem) -> Tensor:
        """How much each weight is worth, (out, in), not negative; what a permutation is sought by."""

    def choose(self, problem: LinearProblem) -> Choice:
        """The mask, with exact counts as `problem.pattern` says."""
        return Choice(keep_largest(self.score(problem), problem.pattern))
