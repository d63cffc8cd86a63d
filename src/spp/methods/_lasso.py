"""The search of Lasso; see lasso.py for the problem that it solves."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import split, unit_costs
from spp.dynamics.order import pair_indices
from spp.methods._bundles import take_gradients, write_masks
from spp.methods._search import RankingSearch
from spp.methods.lasso import LassoConfig
from spp.structure.masked import MaskedModel

MAX_CALIBRATION_STEPS = 10
LAM_MAX_UP = 10.0


class LassoSearch(RankingSearch):
    """Proximal gradient steps on the masks, all in one vector of float64.

    The first steps only measure: s at the dense masks, and on the way down the largest lambda at masks 0.

    Attributes:
        mask: the masks, (num_units,).
        critical: lambda at which a unit last changed sides, (num_units,); 0 where it never did.
        scale: s, 0 before it is known.
        lam_max: largest lambda of the path, 0 before it is known.
    """

    trains_weights = False

    def __init__(self, config: LassoConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        # The penalty has the costs in it: lambda is a worth per cost already.
        self.per_cost = not config.priced
        self.lr = config.lr
        costs = unit_costs(self.pairs, "macs")
        is_attention = torch.tensor([pair.kind != "mlp" for pair in self.pairs])[pair_indices(self.pairs)]
        self._is_attention = is_attention if is_attention.any() else torch.ones_like(is_attention)
        self._price = costs / costs[self._is_attention].mean() if config.priced else torch.ones_like(costs)
        self.is_path = config.lam is None
        self.is_down = self.is_path and config.direction == "down"
        self.num_calibration_steps = min(MAX_CALIBRATION_STEPS, math.ceil(num_steps / 20))
        self.needs_lam_max = self.is_down and config.lam_max is None
        self.mask = torch.ones_like(costs)
        self.velocity = torch.zeros_like(costs)
        self.critical = torch.zeros_like(costs)
        self.pull = torch.zeros_like(costs)
        self.scale = 0.0
        self.lam_max = 0.0

    @property
    def num_measuring_steps(self) -> int:
        """Steps before the first one that moves the masks."""
        return self.num_calibration_steps * (1 + self.needs_lam_max)

    def after_backward(self) -> None:
        gradient = take_gradients(self.masks) / self._price
        if self.num_steps_taken < self.num_measuring_steps:
            self._measure(gradient)
        else:
            self._move(gradient / self.scale)
        self.num_steps_taken += 1
        if self.is_down and self.num_steps_taken == self.num_calibration_steps:
            self.mask.zero_()
        write_masks(self.masked, self.mask)

    def lam_at(self, step: int) -> float:
        """Lambda of a step; before the first one that moves the masks, that of the beginning."""
        if self.config.lam is not None:
            return self.config.lam
        first, last = self.num_measuring_steps, max(self.num_measuring_steps + 1, self.num_steps - 1)
        progress = min(1.0, max(0.0, (step - first) / (last - first)))
        return self.lam_max * math.pow(self.config.lam_ratio, progress if self.is_down else 1 - progress)

    def scores(self) -> dict[str, Tensor]:
        """The lambda up to which a unit stays in the support; beyond the path's end, by how far it is from leaving."""
        lam, is_in = self.lam_at(self.num_steps_taken - 1), self.mask != 0
        if not self.is_path:
            score = torch.where(is_in, self.mask.abs(), self.pull / lam - 1)
        elif self.is_down:
            score = torch.where(is_in, self.critical, torch.clamp(self.pull, max=lam))
        else:
            score = torch.where(is_in, lam * (1 + self.mask.abs()), self.critical)
        return split(self.pairs, score)

    def support(self) -> dict[str, Tensor]:
        """The units whose mask is not 0, by pair name: (size,) bool."""
        return split(self.pairs, self.mask != 0)

    def metrics(self) -> dict[str, float]:
        """Lambda, and the share of the units in the support."""
        return {"lam": self.lam_at(self.num_steps_taken - 1), "support": float((self.mask != 0).double().mean())}

    def state_dict(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name).clone() for name in ("mask", "velocity", "critical", "pull")}
        return {
            **tensors,
            "scale": self.scale,
            "lam_max": self.lam_max,
            "num_steps_taken": self.num_steps_taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("mask", "velocity", "critical", "pull"):
            setattr(self, name, state[name].cpu().clone())
        self.scale, self.lam_max = float(state["scale"]), float(state["lam_max"])
        self.num_steps_taken = int(state["num_steps_taken"])

    def _measure(self, gradient: Tensor) -> None:
        step, num_steps = self.num_steps_taken, self.num_calibration_steps
        if step < num_steps:
            self.scale += float(gradient[self._is_attention].abs().mean()) / num_steps
            self.lam_max = self.config.lam_max or LAM_MAX_UP
        else:
            self.pull += gradient / self.scale / num_steps
            self.lam_max = float(self.pull.abs().max())

    def _move(self, gradient: Tensor) -> None:
        momentum, taken = self.config.momentum, self.num_steps_taken - self.num_measuring_steps
        self.velocity = momentum * self.velocity + (1 - momentum) * gradient
        lam, previous = self.lam_at(self.num_steps_taken), self.lam_at(self.num_steps_taken - 1)
        wanted = self.mask - self.lr * self.velocity / (1 - momentum ** (taken + 1))
        new = wanted.sign() * torch.relu(wanted.abs() - self.lr * lam)
        # The lambda at which this step would have left the unit just on the edge.
        self.pull = wanted.abs() / self.lr
        edge = torch.clamp(self.pull, min(lam, previous), max(lam, previous))
        self.critical = torch.where((new != 0) != (self.mask != 0), edge, self.critical)
        self.mask = new


def match_lambda(
    cost_at: Callable[[float], float], wanted: float, *, low: float = 1e-3, high: float = 1e2, num_searches: int = 12
) -> float:
    """The lambda whose support costs about `wanted`: the cheapest found that still costs at least as much.

    Bisection on the logarithm. A ranking of that search is cut to the budget with the least loss: all that goes are
    units of its support.

    Args:
        cost_at: the cost of the support of a search at this lambda; one search per call.
        wanted: the cost to reach, in the same unit.
        low: a lambda at which the support costs more than `wanted`, or nearly.
        high: a lambda at which it costs less.
        num_searches: calls of `cost_at`.
    """
    for _ in range(num_searches):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost_at(middle) >= wanted else (low, middle)
    return low
