"""The score of RI."""

from torch import Tensor

from spp.methods.weights.ri.config import RIConfig
from spp.sparsity.importance import relative_importance
from spp.sparsity.problem import LinearProblem, MaskChooser


class RI(MaskChooser):
    """|w_ij| / sum_k |w_kj| + |w_ij| / sum_k |w_ik|."""

    def __init__(self, config: RIConfig) -> None:
        self.config = config

    def score(self, problem: LinearProblem) -> Tensor:
        return relative_importance(problem.weight)


METHOD = RI
