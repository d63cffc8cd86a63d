"""spp_ria: see config.py."""

from torch import Tensor

from spp.methods.weights.spp_ria.config import SPPRIAConfig
from spp.methods.weights.spp_ria.mask_bregman import Schedule, iterate
from spp.methods.weights.spp_ria.score_path import entry_times
from spp.sparsity.importance import relative_importance, relative_importance_of_activations
from spp.sparsity.pattern import keep_largest
from spp.sparsity.problem import Choice, LinearProblem, MaskChooser


class SPPRIA(MaskChooser):
    """The mask at which the dynamics of its drive end."""

    def __init__(self, config: SPPRIAConfig) -> None:
        self.config = config
        self.needs = frozenset({"gram"} if config.drive == "reconstruction" else {"norms", "batches"})

    def score(self, problem: LinearProblem) -> Tensor:
        """RIA's."""
        return relative_importance_of_activations(problem.weight, problem.known_input.norms, self.config.a)

    def choose(self, problem: LinearProblem) -> Choice:
        if self.config.drive == "minibatch":
            importance = relative_importance(problem.weight)
            times = entry_times(importance, problem.known_input.batch_norms, self.config.a)
            return Choice(keep_largest(-times, problem.pattern))
        start = keep_largest(self.score(problem), problem.pattern)
        curvature = problem.known_input.curvature
        schedule = Schedule(num_steps=self.config.num_steps, rho=self.config.rho, growth=self.config.rho_growth)
        best = iterate(problem.weight, start, curvature, problem.pattern, schedule)
        return Choice(best.mask)


METHOD = SPPRIA
