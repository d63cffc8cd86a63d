"""The search of Lasso for the lambda of one budget, by bisection over log lambda within one search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from spp.dynamics.budget import Budget, absolute_size, cost_of, sizes_of
from spp.methods.units.lasso.config import LassoConfig
from spp.methods.units.lasso.proximal import LassoSearch
from spp.structure.masked import MaskedModel

FIRST_LAMBDA = 0.5
"""In units of the mean attention gradient of the dense network, as every lambda."""
LAMBDA_FACTOR = 3.0
"""From one lambda to the next until the budget is between two supports."""
MAX_LR = 0.1
SEGMENT_WAY = 3.0
"""What the steps of a segment add up to, if MAX_LR lets them: a mask without a gradient falls by lambda times that."""
SETTLED = 0.1
"""The masks count as settled if in the second half of a segment those of the support move by less than this share of
what the penalty alone moves a mask."""


class LassoBudgetSearch(LassoSearch):
    """Segments of equal length, each at one lambda and without the velocity of the last.

    The cost of the support at the end of a segment decides which lambda is next; while the masks still move to where
    the answer would be another one, that is the same. A new lambda starts from the masks of the largest one whose
    support pays for the budget, the dense ones at first: from a support that is too small units come back slowly. After
    the last segment the masks are those of the segment whose support came nearest to the budget.

    Args:
        config: settings of the penalty and of the steps.
        masked: the network with its masks at 1.
        num_steps: training steps of all segments together, measuring included.
        budget: the size that the support is to have.

    Attributes:
        tried: lam, the macs, params and units of the support, and whether it is_settled, for every segment that ended.

    Raises:
        ValueError: if the budget cannot be reached.
    """

    def __init__(self, config: LassoConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(config, masked, num_steps)
        self.budget = budget
        self.wanted = absolute_size(self.pairs, budget.kind, budget.value, 0)
        self.num_moving_steps = max(0, num_steps - self.num_measuring_steps)
        self.num_lambdas = min(config.num_lambdas, self.num_moving_steps)
        if config.lr is None and self.num_lambdas:
            self.lr = max(self.lr, min(MAX_LR, SEGMENT_WAY * self.num_lambdas / self.num_moving_steps))
        self.tried: list[dict[str, float]] = []
        self._kept = {name: self.mask.clone() for name in ("halfway_mask", "enough_mask", "chosen_mask", "chosen_pull")}

    @property
    def lam(self) -> float:
        """Lambda of the running segment; after the last one the chosen one."""
        if self.tried and len(self.tried) == self.num_lambdas:
            return self.tried[nearest(self._costs(self.tried), self.wanted)]["lam"]
        if self.tried and not self.tried[-1]["is_settled"]:
            return self.tried[-1]["lam"]
        settled = [tried for tried in self.tried if tried["is_settled"]]
        return next_lambda([tried["lam"] for tried in settled], self._costs(settled), self.wanted)

    def summary(self) -> dict[str, Any]:
        """The lambdas that were tried, with the cost of their supports, and the one that was chosen."""
        return {"lambdas": self.tried, "lam": self.lam}

    def state_dict(self) -> dict[str, Any]:
        kept = {name: tensor.clone() for name, tensor in self._kept.items()}
        return {**super().state_dict(), **kept, "tried": [dict(tried) for tried in self.tried]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._kept = {name: state[name].cpu().clone() for name in self._kept}
        self.tried = [dict(tried) for tried in state["tried"]]

    def _move(self, gradient: Tensor) -> None:
        taken = self.num_steps_taken - self.num_measuring_steps
        first, end = (self._first_step(len(self.tried) + number) for number in (0, 1))
        if taken == first:
            self.velocity.zero_()
        if taken == first + (end - first) // 2:
            self._kept["halfway_mask"] = self.mask.clone()
        self._take_step(gradient, self.lam, taken - first)
        if taken + 1 == end:
            self._end_segment()

    def _first_step(self, segment: int) -> int:
        """Moving steps before a segment."""
        return segment * self.num_moving_steps // self.num_lambdas

    def _end_segment(self) -> None:
        masks = self.support()
        counts = sizes_of(cost_of(self.pairs, masks), masks)
        pays = counts[self.budget.kind] >= self.wanted
        before, segment = self._kept["halfway_mask"].abs(), len(self.tried)
        fall = float((before - self.mask.abs()).sum()) / max(1, int((before != 0).sum()))
        num_steps = math.ceil((self._first_step(segment + 1) - self._first_step(segment)) / 2)
        is_settled = (fall if pays else -fall) < SETTLED * self.lam * self.lr * num_steps
        self.tried.append({"lam": self.lam, **counts, "is_settled": is_settled})
        if nearest(self._costs(self.tried), self.wanted) == len(self.tried) - 1:
            self._kept |= {"chosen_mask": self.mask.clone(), "chosen_pull": self.pull.clone()}
        if len(self.tried) == self.num_lambdas:
            self.mask, self.pull = self._kept["chosen_mask"].clone(), self._kept["chosen_pull"].clone()
        elif is_settled and pays:
            self._kept["enough_mask"] = self.mask.clone()
        elif is_settled:
            self.mask = self._kept["enough_mask"].clone()

    def _costs(self, tried: Sequence[Mapping[str, float]]) -> list[float]:
        return [one[self.budget.kind] for one in tried]


def next_lambda(lambdas: Sequence[float], costs: Sequence[float], wanted: float) -> float:
    """The lambda to try next: by a factor further until a support was too small and another was not, then halfway.

    Halfway is on a scale of logarithms.

    Args:
        lambdas: those tried so far.
        costs: of their supports.
        wanted: the cost to reach.
    """
    low, high = 0.0, math.inf
    for lam, cost in zip(lambdas, costs, strict=True):
        low, high = (lam, high) if cost >= wanted else (low, lam)
    if low == 0 and math.isinf(high):
        return FIRST_LAMBDA
    if low == 0:
        return high / LAMBDA_FACTOR
    return low * LAMBDA_FACTOR if math.isinf(high) else math.sqrt(low * high)


def nearest(costs: Sequence[float], wanted: float) -> int:
    """Index of the cost that is nearest to `wanted` by its ratio to it; of equal ones the last."""
    ratios = [max(cost, wanted) / max(min(cost, wanted), 1e-12) for cost in costs]
    return max(index for index, ratio in enumerate(ratios) if ratio == min(ratios))
