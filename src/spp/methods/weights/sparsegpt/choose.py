"""SparseGPT's sweep as a choice."""

from torch import Tensor

from spp.methods.weights.sparsegpt.config import SparseGPTConfig
from spp.sparsity.problem import Choice, LinearProblem, MaskChooser
from spp.sparsity.sweep import choose_in_sweep


class SparseGPT(MaskChooser):
    """Mask and weights at once."""

    needs = frozenset({"gram"})

    def __init__(self, config: SparseGPTConfig) -> None:
        self.config = config

    def score(self, problem: LinearProblem) -> Tensor:
        """w^2 over the diagonal of H^-1, the saliency of the optimal brain surgeon: no order of columns changes it."""
        factor = problem.known_input.curvature.inverse_factor
        return _without_dead(problem).square() / factor.square().sum(0)

    def choose(self, problem: LinearProblem) -> Choice:
        curvature = problem.known_input.curvature
        swept = choose_in_sweep(_without_dead(problem), curvature.inverse_factor, problem.pattern)
        return Choice(swept.mask, swept.weight)


def _without_dead(problem: LinearProblem) -> Tensor:
    """The weights, 0 where the input always was, so that these go first."""
    return problem.weight.masked_fill(problem.known_input.curvature.is_dead, 0.0)


METHOD = SparseGPT
