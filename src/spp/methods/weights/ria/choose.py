"""The score of RIA."""

from torch import Tensor

from spp.methods.weights.ria.config import RIAConfig
from spp.sparsity.importance import relative_importance_of_activations
from spp.sparsity.problem import LinearProblem, MaskChooser


class RIA(MaskChooser):
    """RI_ij ||x_j||^a."""

    needs = frozenset({"norms"})

    def __init__(self, config: RIAConfig) -> None:
        self.config = config

    def score(self, problem: LinearProblem) -> Tensor:
        return relative_importance_of_activations(problem.weight, problem.known_input.norms, self.config.a)


METHOD = RIA
