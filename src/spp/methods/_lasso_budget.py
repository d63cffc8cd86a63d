"""The search of Lasso for the lambda of one budget, by bisection over log lambda within one search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from spp.dynamics.budget import Budget, absolute_size, cost_of
from spp.methods._lasso import LassoSearch
from spp.methods.lasso import LassoConfig
from spp.structure.masked import MaskedModel


class LassoBudgetSearch(LassoSearch):
    """Segments of equal length, each at one lambda, from the masks where the last one ended and without its velocity.

    The cost of the support at the end of a segment decides where the next one looks. After the last segment the masks
    are those of the lambda whose support is the cheapest that still pays for the budget: cut to it, only units of the
    support go. Where none does, those of the lambda that came nearest.

    Args:
        config: settings of the penalty and of the steps.
        masked: the network with its masks at 1.
        num_steps: training steps of all segments together, measuring included.
        budget: the size that the support is to have.

    Attributes:
        tried: lam and the macs, params and units of the support, for every segment that has ended.

    Raises:
        ValueError: if the budget cannot be reached.
    """

    def __init__(self, config: LassoConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(config, masked, num_steps, measures_lam_max=config.lam_max is None)
        self.budget = budget
        self.wanted = absolute_size(self.pairs, budget.kind, budget.value, 0)
        self.num_moving_steps = max(0, num_steps - self.num_measuring_steps)
        self.num_lambdas = min(config.num_lambdas, self.num_moving_steps)
        self.tried: list[dict[str, float]] = []
        self._chosen_mask, self._chosen_pull = self.mask, self.pull

    @property
    def lam(self) -> float:
        """Lambda of the running segment; after the last one the chosen one."""
        if self.tried and len(self.tried) == self.num_lambdas:
            return self.tried[choose(self._costs(), self.wanted)]["lam"]
        highest, ratio = self.lam_max, self.config.lam_ratio
        return next_lambda([tried["lam"] for tried in self.tried], self._costs(), self.wanted, highest, ratio)

    def summary(self) -> dict[str, Any]:
        """The lambdas that were tried, with the cost of their supports, and the one that was chosen."""
        return {"lambdas": self.tried, "lam": self.lam}

    def state_dict(self) -> dict[str, Any]:
        chosen = {"chosen_mask": self._chosen_mask.clone(), "chosen_pull": self._chosen_pull.clone()}
        return {**super().state_dict(), **chosen, "tried": [dict(tried) for tried in self.tried]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._chosen_mask, self._chosen_pull = (state[f"chosen_{name}"].cpu().clone() for name in ("mask", "pull"))
        self.tried = [dict(tried) for tried in state["tried"]]

    def _move(self, gradient: Tensor) -> None:
        taken = self.num_steps_taken - self.num_measuring_steps
        first, end = (self._first_step(len(self.tried) + number) for number in (0, 1))
        if taken == first:
            self.velocity.zero_()
        self._take_step(gradient, self.lam, taken - first)
        if taken + 1 == end:
            self._end_segment()

    def _first_step(self, segment: int) -> int:
        """Moving steps before a segment."""
        return segment * self.num_moving_steps // self.num_lambdas

    def _end_segment(self) -> None:
        masks = self.support()
        cost = cost_of(self.pairs, masks)
        counts = {"macs": cost.macs, "params": cost.params, "units": sum(int(mask.sum()) for mask in masks.values())}
        self.tried.append({"lam": self.lam, **counts})
        if choose(self._costs(), self.wanted) == len(self.tried) - 1:
            self._chosen_mask, self._chosen_pull = self.mask.clone(), self.pull.clone()
        if len(self.tried) == self.num_lambdas:
            self.mask, self.pull = self._chosen_mask.clone(), self._chosen_pull.clone()

    def _costs(self) -> list[float]:
        return [tried[self.budget.kind] for tried in self.tried]


def next_lambda(
    lambdas: Sequence[float], costs: Sequence[float], wanted: float, lam_max: float, lam_ratio: float
) -> float:
    """The lambda to try next.

    The first is in the middle of lam_max lam_ratio and lam_max, on a scale of logarithms. The next ones go on by a
    quarter of that range, also beyond its ends, until a support was too small and another was not: so the bracket
    holds the solution whatever lam_max is. From there on it is halved.

    Args:
        lambdas: those tried so far.
        costs: of their supports.
        wanted: the cost to reach.
        lam_max: the largest lambda that should be needed.
        lam_ratio: the smallest one over it.
    """
    low, high = 0.0, math.inf
    for lam, cost in zip(lambdas, costs, strict=True):
        low, high = (lam, high) if cost >= wanted else (low, lam)
    quarter = math.pow(lam_ratio, 0.25)
    if low == 0 and math.isinf(high):
        return lam_max * math.sqrt(lam_ratio)
    if low == 0:
        return high * quarter
    return low / quarter if math.isinf(high) else math.sqrt(low * high)


def choose(costs: Sequence[float], wanted: float) -> int:
    """Index of the least cost that is at least `wanted`, else of the largest; of equal ones the last."""
    enough = [cost for cost in costs if cost >= wanted]
    best = min(enough) if enough else max(costs)
    return max(index for index, cost in enumerate(costs) if cost == best)
