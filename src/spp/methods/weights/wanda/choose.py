"""The score of Wanda."""

from torch import Tensor

from spp.methods.weights.wanda.config import WandaConfig
from spp.sparsity.problem import LinearProblem, MaskChooser


class Wanda(MaskChooser):
    """|w_ij| ||x_j||."""

    needs = frozenset({"norms"})

    def __init__(self, config: WandaConfig) -> None:
        self.config = config

    def score(self, problem: LinearProblem) -> Tensor:
        return problem.weight.abs() * problem.known_input.norms


METHOD = Wanda
