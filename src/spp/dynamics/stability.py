"""Watches the masks for a step that is too large."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

PATIENCE = 5
"""Steps in a row that must look unstable before the warning; chance does not last that long."""


class DivergenceError(FloatingPointError, ValueError):
    """The masks or their gradient are no longer finite: the loss is broken, or the user's step too large."""


class StepWatch:
    """Estimates the curvature along the path and warns once when the masks run away.

    The curvature L is the secant <dg, dM> / |dM|^2 over the last step. Under gradient descent with step a,
    noise that is independent from step to step makes this 1/a, half of what the bound a*L < 2 allows, whereas
    |dg| / |dM| would take all noise for curvature.
    """

    def __init__(self) -> None:
        self._warned = False
        self._num_suspicious = 0
        self._norm = math.inf
        self._curvature = 0.0
        self._last: tuple[Tensor, Tensor] | None = None

    def check(
        self,
        step: int,
        mask: Tensor,
        new_mask: Tensor,
        grad: Tensor,
        rho: float,
        bound: tuple[str, float, float] | None,
    ) -> None:
        """Look at step `step` (1-based), which takes `mask` to `new_mask` with the task gradient `grad`.

        `bound` is presets.step_bound: the name of the gain, the gain and the limit of gain*(L + 2 rho).
        Shapes: (num_units,).

        Raises:
            DivergenceError: if a mask is no longer finite; names the bound and the last finite estimate of L.

        Warns once (UserWarning) if the bound is violated while the norm grows, PATIENCE steps in a row.
        """
        last_mask, last_grad = self._last or (mask, grad)
        move, change = mask - last_mask.to(mask.device), grad - last_grad.to(grad.device)
        norm, moved, bent = torch.stack([new_mask.norm(), move.dot(move), change.dot(move)]).tolist()
        curvature = bent / moved if moved > 0 else 0.0
        if math.isfinite(curvature):
            self._curvature = curvature
        if not math.isfinite(norm):
            raise DivergenceError(f"lr: the masks are no longer finite at step {step}: {self._advice(rho, bound)}")
        grew = norm > self._norm
        self._norm, self._last = norm, (mask, grad)
        if bound is None or self._warned:
            return
        name, gain, limit = bound
        reached = gain * (curvature + 2 * rho)
        self._num_suspicious = self._num_suspicious + 1 if grew and reached >= limit else 0
        if self._num_suspicious == PATIENCE:
            self._warned = True
            warnings.warn(
                f"lr: too large, the masks grow: must keep {name}*(L + 2*rho) < {limit:g}, is {reached:.3g}"
                f" with the estimated L = {curvature:.3g}; multiply lr by {0.5 * limit / reached:.2g}",
                UserWarning,
                stacklevel=2,
            )

    def _advice(self, rho: float, bound: tuple[str, float, float] | None) -> str:
        """What to do about masks that are no longer finite."""
        if bound is None:
            return "check the loss, or lower lr"
        name, gain, limit = bound
        reached = gain * (self._curvature + 2 * rho)
        return (
            f"must keep {name}*(L + 2*rho) < {limit:g}, is {reached:.3g} with the estimated L = {self._curvature:.3g};"
            " lower lr, or check the loss"
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next check depends on."""
        return {
            "warned": self._warned,
            "num_suspicious": self._num_suspicious,
            "norm": self._norm,
            "curvature": self._curvature,
            "last": self._last and [tensor.clone() for tensor in self._last],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._warned, self._num_suspicious = state["warned"], state["num_suspicious"]
        self._norm, self._curvature = state["norm"], state["curvature"]
        self._last = state["last"] and (state["last"][0].clone(), state["last"][1].clone())
