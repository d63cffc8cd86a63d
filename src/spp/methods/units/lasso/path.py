"""The searches of Lasso along a path and at one lambda; see config.py for the problem that they solve."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from spp.dynamics.budget import split
from spp.methods.units.lasso.config import LassoConfig
from spp.methods.units.lasso.proximal import LassoSearch
from spp.structure.masked import MaskedModel

LAM_MAX_UP = 10.0


class LambdaSearch(LassoSearch):
    """The search at the one lambda of the config."""

    @property
    def lam(self) -> float:
        assert self.config.lam is not None
        return self.config.lam

    def _move(self, gradient: Tensor) -> None:
        self._take_step(gradient, self.lam, self.num_steps_taken - self.num_measuring_steps)


class PathSearch(LassoSearch):
    """The search along all lambdas; on the way down it starts with masks 0 and first measures the largest lambda there.

    Attributes:
        critical: lambda at which a unit last changed sides, (num_units,); 0 where it never did.
        lam_max: largest lambda, 0 before it is known.
    """

    _tensors: ClassVar[tuple[str, ...]] = (*LassoSearch._tensors, "critical")

    def __init__(self, config: LassoConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(config, masked, num_steps)
        self.is_down = config.direction == "down"
        self.critical = torch.zeros_like(self.mask)
        self.lam_max = 0.0

    @property
    def num_measuring_steps(self) -> int:
        return self.num_calibration_steps * (1 + (self.is_down and self.config.lam_max is None))

    @property
    def lam(self) -> float:
        return self.lam_at(self.num_steps_taken - 1)

    def lam_at(self, step: int) -> float:
        """Lambda of a step; before the first one that moves the masks, that of the beginning."""
        first, last = self.num_measuring_steps, max(self.num_measuring_steps + 1, self.num_steps - 1)
        progress = min(1.0, max(0.0, (step - first) / (last - first)))
        return self.lam_max * math.pow(self.config.lam_ratio, progress if self.is_down else 1 - progress)

    def scores(self) -> dict[str, Tensor]:
        """The lambda up to which a unit stays in the support; beyond the path's end, by how far it is from leaving."""
        is_in = self.mask != 0
        if self.is_down:
            score = torch.where(is_in, self.critical, torch.clamp(self.pull, max=self.lam))
        else:
            score = torch.where(is_in, self.lam * (1 + self.mask.abs()), self.critical)
        return split(self.pairs, score)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lam_max": self.lam_max}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.lam_max = float(state["lam_max"])

    def _measure(self, gradient: Tensor) -> None:
        if self.num_steps_taken < self.num_calibration_steps:
            super()._measure(gradient)
            self.lam_max = self.config.lam_max or LAM_MAX_UP
        else:
            self.pull += gradient / self.scale / self.num_calibration_steps
            self.lam_max = float(self.pull.abs().max())
        if self.is_down and self.num_steps_taken + 1 >= self.num_calibration_steps:
            self.mask.zero_()

    def _move(self, gradient: Tensor) -> None:
        lam, previous, was_in = self.lam_at(self.num_steps_taken), self.lam, self.mask != 0
        self._take_step(gradient, lam, self.num_steps_taken - self.num_measuring_steps)
        edge = torch.clamp(self.pull, min(lam, previous), max(lam, previous))
        self.critical = torch.where((self.mask != 0) != was_in, edge, self.critical)
