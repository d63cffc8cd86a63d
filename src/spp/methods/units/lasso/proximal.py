"""Proximal gradient steps, which all searches of Lasso take; see config.py for the problem that they solve."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from spp.dynamics.budget import split, unit_costs
from spp.dynamics.order import pair_indices
from spp.methods.bundles import take_gradients, write_masks
from spp.methods.search import RankingSearch
from spp.methods.units.lasso.config import LassoConfig
from spp.structure.masked import MaskedModel

MAX_CALIBRATION_STEPS = 10
DEFAULT_LR = 0.03


class LassoSearch(RankingSearch):
    """Proximal gradient steps on the masks, all in one vector of float64.

    The first steps only measure: s at the dense masks.

    Args:
        config: settings of the penalty and of the steps.
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.

    Attributes:
        mask: the masks, (num_units,).
        pull: lambda at which the last step would have left a unit just on the edge of the support, (num_units,).
        scale: s, 0 before it is known.
    """

    _tensors: ClassVar[tuple[str, ...]] = ("mask", "velocity", "pull")

    def __init__(self, config: LassoConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        # The penalty has the costs in it: lambda is a worth per cost already.
        self.per_cost = not config.priced
        self.lr = config.lr or DEFAULT_LR
        costs = unit_costs(self.pairs, "macs")
        is_attention = torch.tensor([pair.kind != "mlp" for pair in self.pairs])[pair_indices(self.pairs)]
        self._is_attention = is_attention if is_attention.any() else torch.ones_like(is_attention)
        self._price = costs / costs[self._is_attention].mean() if config.priced else torch.ones_like(costs)
        self.num_calibration_steps = min(MAX_CALIBRATION_STEPS, math.ceil(num_steps / 20))
        self.mask = torch.ones_like(costs)
        self.velocity = torch.zeros_like(costs)
        self.pull = torch.zeros_like(costs)
        self.scale = 0.0

    @property
    @abstractmethod
    def lam(self) -> float:
        """Lambda of the last step that moved the masks; before it that of the beginning."""

    @property
    def num_measuring_steps(self) -> int:
        """Steps before the first one that moves the masks."""
        return self.num_calibration_steps

    def after_backward(self) -> None:
        gradient = take_gradients(self.masks) / self._price
        if self.num_steps_taken < self.num_measuring_steps:
            self._measure(gradient)
        else:
            self._move(gradient / self.scale)
        self.num_steps_taken += 1
        write_masks(self.masked, self.mask)

    def scores(self) -> dict[str, Tensor]:
        """The size of a mask; outside of the support, below 0, how near the unit is to it."""
        return split(self.pairs, torch.where(self.mask != 0, self.mask.abs(), self.pull / self.lam - 1))

    def support(self) -> dict[str, Tensor]:
        """The units whose mask is not 0, by pair name: (size,) bool."""
        return split(self.pairs, self.mask != 0)

    def metrics(self) -> dict[str, float]:
        """Lambda, and the share of the units in the support."""
        return {"lam": self.lam, "support": float((self.mask != 0).double().mean())}

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name).clone() for name in self._tensors},
            "scale": self.scale,
            "num_steps_taken": self.num_steps_taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self._tensors:
            setattr(self, name, state[name].cpu().clone())
        self.scale = float(state["scale"])
        self.num_steps_taken = int(state["num_steps_taken"])

    @abstractmethod
    def _move(self, gradient: Tensor) -> None:
        """One step by the gradient in the metric of the steps, (num_units,)."""

    def _measure(self, gradient: Tensor) -> None:
        self.scale += float(gradient[self._is_attention].abs().mean()) / self.num_calibration_steps

    def _take_step(self, gradient: Tensor, lam: float, num_taken: int) -> None:
        """The proximal step at a lambda, after `num_taken` others since the velocity was 0."""
        momentum = self.config.momentum
        self.velocity = momentum * self.velocity + (1 - momentum) * gradient
        wanted = self.mask - self.lr * self.velocity / (1 - momentum ** (num_taken + 1))
        self.mask = wanted.sign() * torch.relu(wanted.abs() - self.lr * lam)
        self.pull = wanted.abs() / self.lr
