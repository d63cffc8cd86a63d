"""The score of magnitude."""

from torch import Tensor

from spp.methods.weights.magnitude.config import MagnitudeConfig
from spp.sparsity.problem import LinearProblem, MaskChooser


class Magnitude(MaskChooser):
    """|w|."""

    def __init__(self, config: MagnitudeConfig) -> None:
        self.config = config

    def score(self, problem: LinearProblem) -> Tensor:
        return problem.weight.abs()


METHOD = Magnitude
