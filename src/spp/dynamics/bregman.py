"""The optimizer of the masks: a linearised Bregman iteration that records when units enter the support."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spp.dynamics.presets import PRESETS, entry_time, hyper_parameters, shrink, step_bound
from spp.dynamics.stability import DivergenceError, StepWatch
from spp.structure.masked import Masks

ATTENTION_KINDS = ("qk", "vo")


@dataclass
class _BregmanState:
    """What changes from step to step, all masks in one vector of float64 (num_units,).

    The optimizer holds one and never replaces it, so that a copy of its attributes (Lightning's wrapper) sees
    the same state.
    """

    tensors: dict[str, Tensor]
    num_steps_taken: int = 0
    calibrated: list[float] = field(default_factory=list)
    scale: float | None = None
    watch: StepWatch = field(default_factory=StepWatch)


class BregmanOptimizer(Optimizer):
    """Moves the masks M and the path variables V and Gamma.

    Sources: the paper, "The dynamics" (textbook); the authors' adamw_spp.py (released);
    docs/method.md for our own (priced).

    M starts at the parameters' values, V and Gamma at 0. Weights are not this optimizer's: freeze them.

    Args:
        masks: the masks by name; with the `masks` of a MaskedModel the pairs give each unit's cost and kind.
        preset: `priced` (default), `textbook` or `released`; see presets.py for rules and defaults.
        lr, kappa, lam, rho, momentum, eta: hyper-parameters; None takes the preset's default.
        num_steps: steps of the whole search; the defaults are set from it.
        clip: largest size of a scaled gradient (`priced`), against heavy tails; None: any.
        unit_costs: MACs of one unit by mask name, for `priced`; default: from the pairs, else all 1, and then
            `has_costs` is False.

    `priced` divides the gradient by s*c_u. c_u is the unit's cost over the mean cost of the attention units
    (of all units where no kind is known). s is the mean |grad| over the attention units at the start: call
    `calibrate()` in place of `step()` for as many batches as s shall average over; otherwise the first step's
    own gradient gives s.

    V, Gamma and the entry times are float64. The state follows the masks to their device.

    Raises:
        ValueError: for a mistaken argument, a step too large for the coupling, or a state of other masks.
    """

    def __init__(
        self,
        masks: Mapping[str, nn.Parameter],
        preset: str = "priced",
        *,
        lr: float | None = None,
        kappa: float | None = None,
        lam: float | None = None,
        rho: float | None = None,
        momentum: float | None = None,
        eta: float | None = None,
        num_steps: int = 200,
        clip: float | None = None,
        unit_costs: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(masks, Mapping):
            raise ValueError(
                f"masks: {type(masks).__name__} is not allowed: must map names to parameters;"
                " use MaskedModel(model, pairs).masks"
            )
        if not masks:
            raise ValueError("masks: is empty; pass MaskedModel(model, pairs).masks of a model with pairs")
        given = {"lr": lr, "kappa": kappa, "lam": lam, "rho": rho, "momentum": momentum, "eta": eta}
        defaults = hyper_parameters(preset, num_steps, given)
        if clip is not None and not (PRESETS[preset].scaled and clip > 0):
            raise ValueError(
                f"clip: {clip} is not allowed with preset={preset}; allowed: above 0 with priced; use None"
            )
        super().__init__([{"params": list(masks.values())}], defaults)
        self.preset = preset
        self.num_steps = num_steps
        self.clip = clip
        self._names = list(masks)
        self._params: list[Tensor] = list(masks.values())
        self._sizes = [param.numel() for param in self._params]
        self._attention = _attention_units(masks)
        self.has_costs = PRESETS[preset].scaled and (unit_costs is not None or isinstance(masks, Masks))
        self._price = _relative_costs(masks, unit_costs, self._attention)
        names = ("V", "Gamma", *PRESETS[preset].buffers)
        tensors = {name: torch.zeros(sum(self._sizes), dtype=torch.float64) for name in names}
        tensors["entry"] = torch.full_like(tensors["V"], torch.inf)
        tensors["S"] = torch.zeros_like(tensors["V"], dtype=torch.int64)
        self._bregman_state = _BregmanState(tensors)
        self._follow_device()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: the base class would leave out all that is ours."""
        own = (
            "preset",
            "num_steps",
            "clip",
            "has_costs",
            "_names",
            "_params",
            "_sizes",
            "_attention",
            "_price",
            "_bregman_state",
        )
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    @property
    def num_steps_taken(self) -> int:
        """Steps done so far."""
        return self._bregman_state.num_steps_taken

    @property
    def scale(self) -> float | None:
        """The gradient scale s of `priced`; None before it is fixed by the first step."""
        return self._bregman_state.scale

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of every mask."""
        return dict(zip(self._names, self._sizes, strict=True))

    @property
    def hyper(self) -> dict[str, float]:
        """The hyper-parameters; lr is the one a scheduler started from."""
        group = self.param_groups[0]
        return {name: float(group[name]) for name in PRESETS[self.preset].fields} | {
            "lr": float(group.get("initial_lr", group["lr"]))
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all masks; returns the closure's loss.

        Raises:
            DivergenceError: if a mask would no longer be finite; nothing is changed then.

        Warns once (UserWarning) when the step looks too large for the curvature of the loss (StepWatch).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        state, group, preset = self._bregman_state, self.param_groups[0], PRESETS[self.preset]
        self._follow_device()
        grad = self._scaled(self._gradient()) if preset.scaled else self._gradient()
        step = state.num_steps_taken + 1
        mask, gamma, value = self._flat(self._params), state.tensors["Gamma"], state.tensors["V"]
        buffers = {name: state.tensors[name].clone() for name in preset.buffers}
        new_mask, rate = preset.rule(mask, gamma, grad, buffers, step, group)
        # Rounded as the masks are stored, so that the check sees an overflow and V follows the masks in use.
        new_mask = new_mask.to(self._params[0].dtype).to(torch.float64)
        state.watch.check(step, mask, new_mask, grad, group["rho"], step_bound(self.preset, group))

        torch._foreach_copy_(self._params, self._shaped(new_mask))
        new_value = value + rate * ((mask if preset.simultaneous else new_mask) - gamma)
        state.tensors.update(buffers)
        state.tensors["entry"] = entry_time(
            state.tensors["entry"], step, value, new_value, group["lam"], preset.two_sided
        )
        state.tensors["V"] = new_value
        state.tensors["Gamma"] = shrink(new_value, group["lam"], group["kappa"], preset.two_sided)
        state.num_steps_taken = step
        return loss

    @torch.no_grad()
    def calibrate(self) -> None:
        """Measure the gradient scale s on the batch just backpropagated, at the start masks, without a step.

        Raises:
            ValueError: if the preset does not scale the gradient, or a step has been taken.
        """
        if not PRESETS[self.preset].scaled:
            raise ValueError(f"calibrate: preset={self.preset} does not scale the gradient; leave the call out")
        if self._bregman_state.num_steps_taken:
            raise ValueError("calibrate: s belongs to the start masks; call calibrate() before the first step()")
        self._bregman_state.calibrated.append(self._attention_gradient(self._gradient()))

    @torch.no_grad()
    def sample_occupancy(self) -> None:
        """Add 1 to S of every unit in the support (released code: every `interval` batches of an epoch)."""
        self._bregman_state.tensors["S"] += self._bregman_state.tensors["Gamma"] != 0

    @torch.no_grad()
    def state_of(self, name: str) -> dict[str, Tensor]:
        """Copies of "M", "V", "Gamma", "entry" (steps; inf: never entered) and "S" of one mask, each of its shape.

        Raises:
            ValueError: if there is no such mask.
        """
        if name not in self._names:
            raise ValueError(f"mask: {name!r} is not one; allowed: {', '.join(self._names)}")
        index = self._names.index(name)
        mask = self._params[index].detach()
        state = {"M": mask.clone()}
        for key in ("V", "Gamma", "entry", "S"):
            state[key] = torch.split(self._bregman_state.tensors[key], self._sizes)[index].view_as(mask).clone()
        return state

    def gamma(self) -> Tensor:
        """Copy of Gamma of all masks, one after the other, (num_units,) float64."""
        return self._bregman_state.tensors["Gamma"].clone()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the masks themselves, which belong to the model's state."""
        state = self._bregman_state
        return super().state_dict() | {
            "bregman": {
                "preset": self.preset,
                "sizes": self.sizes,
                "num_steps_taken": state.num_steps_taken,
                "calibrated": list(state.calibrated),
                "scale": state.scale,
                "watch": state.watch.state_dict(),
                "tensors": {name: tensor.clone() for name, tensor in state.tensors.items()},
            }
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; with the masks of that moment the run is the undisturbed one."""
        saved = state_dict.get("bregman", {})
        if (saved.get("preset"), saved.get("sizes")) != (self.preset, self.sizes):
            raise ValueError(
                "state_dict: is of another preset or of other masks; build the optimizer as the saved run did"
            )
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "bregman"})
        state = self._bregman_state
        state.num_steps_taken, state.scale = saved["num_steps_taken"], saved["scale"]
        state.calibrated[:] = saved["calibrated"]
        state.watch.load_state_dict(saved["watch"])
        state.tensors.update({name: tensor.clone() for name, tensor in saved["tensors"].items()})
        self._follow_device()

    def _follow_device(self) -> None:
        """Move the state to the device of the masks (to the CPU where that knows no float64)."""
        device = self._params[0].device
        device = torch.device("cpu") if device.type == "mps" else device
        if self._price.device != device:
            self._price, self._attention = self._price.to(device), self._attention.to(device)
        tensors = self._bregman_state.tensors
        if tensors["V"].device != device:
            tensors.update({name: tensor.to(device) for name, tensor in tensors.items()})

    def _flat(self, pieces: list[Tensor]) -> Tensor:
        """All masks' pieces in one float64 vector, (num_units,)."""
        joined = torch.cat([piece.detach().reshape(-1) for piece in pieces])
        return joined.to(self._price.device).to(torch.float64)

    def _shaped(self, flat: Tensor) -> list[Tensor]:
        """The inverse of `_flat`."""
        return [piece.view_as(p) for piece, p in zip(torch.split(flat, self._sizes), self._params, strict=True)]

    def _gradient(self) -> Tensor:
        """The task gradient, (num_units,); zero for a mask that this loss did not use."""
        if all(param.grad is None for param in self._params):
            raise ValueError("masks: none has a gradient; call backward() on a loss of the masked model first")
        return self._flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self._params])

    def _attention_gradient(self, grad: Tensor) -> float:
        """Mean |grad| over the attention units.

        Raises:
            DivergenceError: if it is not finite.
        """
        size = float(grad[self._attention].abs().mean())
        if not math.isfinite(size):
            raise DivergenceError("masks: their gradient is not finite; check the loss")
        return size

    def _scaled(self, grad: Tensor) -> Tensor:
        """The gradient over s*c_u, clipped; fixes s at the first call."""
        state = self._bregman_state
        if state.scale is None:
            measured = state.calibrated or [self._attention_gradient(grad)]
            if not any(measured):
                raise ValueError("masks: their gradient is zero; check that the loss depends on them")
            state.scale = sum(measured) / len(measured)
        scaled = grad / (state.scale * self._price)
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)


def _attention_units(masks: Mapping[str, nn.Parameter]) -> Tensor:
    """Which units set the scale and the price: those of attention, or all; (num_units,) bool."""
    kinds = {pair.name: pair.kind for pair in masks.pairs} if isinstance(masks, Masks) else {}
    chosen = torch.cat(
        [torch.full((param.numel(),), kinds.get(name) in ATTENTION_KINDS) for name, param in masks.items()]
    )
    return chosen if chosen.any() else torch.ones_like(chosen)


def _relative_costs(
    masks: Mapping[str, nn.Parameter], unit_costs: Mapping[str, float] | None, attention: Tensor
) -> Tensor:
    """Price c_u of every unit: its MACs over the mean MACs of the attention units; (num_units,) float64."""
    if unit_costs is None and isinstance(masks, Masks):
        unit_costs = {pair.name: pair.macs_per_unit for pair in masks.pairs}
    if unit_costs is None:
        unit_costs = dict.fromkeys(masks, 1.0)
    for name in masks:
        if not unit_costs.get(name, 0) > 0:
            raise ValueError(f"unit_costs: {name}: {unit_costs.get(name)} is not allowed: must be > 0 for every mask")
    costs = torch.cat(
        [torch.full((param.numel(),), float(unit_costs[name]), dtype=torch.float64) for name, param in masks.items()]
    )
    return costs / costs[attention].mean()
