"""Samples Gamma along the path, for the figure that shows which units enter and when."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.bregman import BregmanOptimizer

TARGET_SAMPLES = 100
"""Samples over the planned steps; a run that goes on is thinned out, so there are never twice as many."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Gamma at some steps: steps (num_samples,) int64; gamma by mask name, (num_samples, size) float32."""

    steps: Tensor
    gamma: dict[str, Tensor]


class PathRecorder:
    """Keeps a copy of Gamma (float32, CPU) every `every` steps; default: about 100 over the planned steps.

    Raises:
        ValueError: if `every` is not a positive number of steps.
    """

    def __init__(self, opt: BregmanOptimizer, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every: {every} is not allowed: must be >= 1 step; leave it out for about 100 samples")
        self._opt = opt
        self.every = every or math.ceil(opt.num_steps / TARGET_SAMPLES)
        self._steps: list[int] = []
        self._samples: list[Tensor] = []

    def record(self) -> None:
        """Call after every step; samples when it is time."""
        step = self._opt.num_steps_taken
        if step % self.every:
            return
        self._steps.append(step)
        self._samples.append(self._opt.gamma().to("cpu", torch.float32))
        if len(self._steps) == 2 * TARGET_SAMPLES:
            self.every *= 2
            kept = [index for index, taken in enumerate(self._steps) if taken % self.every == 0]
            self._steps = [self._steps[index] for index in kept]
            self._samples = [self._samples[index] for index in kept]

    def trace(self) -> Trace:
        """What was sampled so far."""
        sizes = self._opt.sizes
        samples = torch.stack(self._samples) if self._samples else torch.zeros(0, sum(sizes.values()))
        pieces = torch.split(samples, list(sizes.values()), dim=1)
        gamma = {name: piece.clone() for name, piece in zip(sizes, pieces, strict=True)}
        return Trace(torch.tensor(self._steps, dtype=torch.int64), gamma)

    def state_dict(self) -> dict[str, Any]:
        """Everything sampled so far, for a checkpoint."""
        return {"every": self.every, "steps": list(self._steps), "samples": list(self._samples)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.every, self._steps, self._samples = state["every"], list(state["steps"]), list(state["samples"])
