"""The three recurrences of the mask dynamics, their hyper-parameters and their limits.

Every preset advances one step in the same order: the masks M by its own rule, then

    V     <- V + c (M - Gamma)                            (old Gamma; the M before the step for `textbook`, else new)
    Gamma <- kappa * shrink(V, lam)                       (two-sided for `textbook`, else max(V - lam, 0))

with c = lr*rho (`textbook`), the bias-corrected Adam step times rho (`released`) or eta (`priced`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spp.dynamics.number import real_number

ADAM_BETA1, ADAM_BETA2, ADAM_EPS = 0.9, 0.999, 1e-4

Group = Mapping[str, float]
Buffers = dict[str, Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Buffers, int, Group], tuple[Tensor, float]]
"""(M, Gamma, task gradient, buffers changed in place, 1-based step, hyper-parameters) -> (new M, c)."""


def _textbook(
    mask: Tensor, gamma: Tensor, grad: Tensor, buffers: Buffers, step: int, group: Group
) -> tuple[Tensor, float]:
    """Source: the paper, "The dynamics", discretised with step alpha = lr."""
    rate = group["lr"] * group["rho"]
    return mask - group["kappa"] * (group["lr"] * grad + rate * (mask - gamma)), rate


def _released(
    mask: Tensor, gamma: Tensor, grad: Tensor, buffers: Buffers, step: int, group: Group
) -> tuple[Tensor, float]:
    """Source: the authors' adamw_spp.py, lines 475-571: Adam on the task gradient alone."""
    first, second = buffers["exp_avg"], buffers["exp_avg_sq"]
    first.mul_(ADAM_BETA1).add_(grad, alpha=1 - ADAM_BETA1)
    second.mul_(ADAM_BETA2).addcmul_(grad, grad, value=1 - ADAM_BETA2)
    rate = group["lr"] / (1 - ADAM_BETA1**step)
    denominator = (second / (1 - ADAM_BETA2**step)).sqrt_().add_(ADAM_EPS)
    return mask - rate * first / denominator, rate * group["rho"]


def _priced(
    mask: Tensor, gamma: Tensor, grad: Tensor, buffers: Buffers, step: int, group: Group
) -> tuple[Tensor, float]:
    """Gradient descent on the bias-corrected average of the scaled gradient plus the coupling."""
    average, momentum = buffers["ema"], group["momentum"]
    average.mul_(momentum).add_(grad + group["rho"] * (mask - gamma), alpha=1 - momentum)
    return mask - group["lr"] / (1 - momentum**step) * average, group["eta"]


@dataclass(frozen=True)
class Preset:
    """One variant of the dynamics.

    rule: the update of the masks; buffers: names of its moving averages; fields: its hyper-parameters;
    two_sided: whether a negative V may enter the support; scaled: whether the gradient is divided by s*c_u;
    simultaneous: whether V moves by the M before the step, as the paper and DessiLBI's slbi_opt.py write it.
    """

    rule: Rule
    buffers: tuple[str, ...]
    fields: tuple[str, ...]
    two_sided: bool = False
    scaled: bool = False
    simultaneous: bool = False


PRESETS = {
    "priced": Preset(_priced, ("ema",), ("lr", "kappa", "lam", "rho", "momentum", "eta"), scaled=True),
    "textbook": Preset(_textbook, (), ("lr", "kappa", "lam", "rho"), two_sided=True, simultaneous=True),
    "released": Preset(_released, ("exp_avg", "exp_avg_sq"), ("lr", "kappa", "lam", "rho")),
}


def shrink(value: Tensor, lam: float, kappa: float, two_sided: bool) -> Tensor:
    """Gamma of V: `kappa` times the soft threshold of V at `lam`, or its positive part only."""
    excess = (value.abs() if two_sided else value).sub(lam).clamp_(min=0.0).mul_(kappa)
    return excess * value.sign() if two_sided else excess


def step_bound(preset: str, group: Group) -> tuple[str, float, float] | None:
    """The run-time bound on the step: gain*(L + 2 rho) < limit, as (name of the gain, gain, limit).

    L is the curvature of the (scaled) task loss, 2 rho the norm of the coupling's Hessian in (M, Gamma).
    `textbook` is plain gradient descent with step kappa*lr: limit 2. `priced` averages the gradient with
    momentum b, a heavy ball with step (1-b)*lr: limit 2(1+b)/(1-b). `released` takes Adam steps of bounded
    length, which cannot run away: None.
    """
    if preset == "released":
        return None
    if preset == "textbook":
        return "kappa*lr", group["kappa"] * group["lr"], 2.0
    return "lr", group["lr"], 2 * (1 + group["momentum"]) / (1 - group["momentum"])


def _defaults(preset: str, num_steps: int, given: Mapping[str, float]) -> dict[str, float]:
    """What is not given, set from what is, so that the path fits into `num_steps`.

    priced: our own (docs/method.md); a unit that keeps M = 1 enters at a fifth of the steps. In a search of fewer than
        100 steps lr grows, so that the steps still add up to 3, up to 0.3/rho (results/README.md).
    textbook: lr covers ten relaxation times 1/(kappa*rho), lr at most a tenth of its bound. A unit without
        gradient ends just below the threshold lam = 1/kappa, so that the task loss decides what enters.
    released: lam 3 as in adamw_spp.py; a unit that keeps M = 1 enters at a quarter of the steps (with 12,000
        steps, lr is the authors' 1e-3).
    """
    if preset == "priced":
        eta, rho = given.get("eta", 2 / num_steps), given.get("rho", 3.0)
        return {
            "lr": max(0.03, min(3 / num_steps, 0.3 / max(rho, 1.0))),
            "kappa": 1.0,
            "lam": 0.2 * eta * num_steps,
            "rho": rho,
            "momentum": 0.9,
            "eta": eta,
        }
    rho, kappa = given.get("rho", 1.0), given.get("kappa", 1.0)
    if preset == "textbook":
        return {"lr": min(0.1, 10 / num_steps) / (kappa * rho), "kappa": kappa, "lam": 1.0, "rho": rho}
    lam = given.get("lam", 3.0)
    return {"lr": min(0.5, 4 * lam / num_steps) / rho, "kappa": 1.0, "lam": lam, "rho": rho}


def hyper_parameters(preset: str, num_steps: int, given: Mapping[str, float | None]) -> dict[str, float]:
    """All hyper-parameters of `preset`: those given (not None), and its defaults for the rest.

    Raises:
        ValueError: unknown preset, a value out of range or of another preset, or a step too large for the
            coupling alone: kappa*lr*2*rho < 2 (`priced` and `released`, where kappa is not in the step:
            lr*rho < 1; an averaged gradient bears more, but its first, bias-corrected steps do not).
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: {preset!r} is not known; allowed: {', '.join(PRESETS)}; use priced")
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps: {num_steps!r} is not allowed: must be an integer >= 1; use 200")
    remedies = _defaults(preset, num_steps, {})
    chosen = {
        name: real_number(name, value, remedies.get(name, 0.0)) for name, value in given.items() if value is not None
    }
    for name, value in chosen.items():
        if name not in PRESETS[preset].fields:
            raise ValueError(f"{name}: {value:g} is not allowed: preset={preset} has no {name}; leave it out")
        _check_range(preset, name, value, num_steps)
    values = _defaults(preset, num_steps, chosen) | chosen
    _check_step(preset, values)
    return values


def _check_range(preset: str, name: str, value: float, num_steps: int) -> None:
    """Raise ValueError if one hyper-parameter alone is out of range."""
    if name == "momentum":
        allowed, fits = "in [0, 1)", 0 <= value < 1
    elif name == "rho" and preset == "priced":
        allowed, fits = ">= 0", value >= 0
    elif name == "kappa" and preset == "released":
        allowed, fits = "1, the released code's", value == 1
    else:
        allowed, fits = "> 0", value > 0
    if not (fits and math.isfinite(value)):
        remedy = _defaults(preset, num_steps, {})[name]
        raise ValueError(f"{name}: {value:g} is not allowed: must be {allowed}; use {remedy:g} for preset={preset}")


def _check_step(preset: str, values: Mapping[str, float]) -> None:
    """Raise ValueError if the coupling alone makes the iteration unstable."""
    lr, rho = values["lr"], values["rho"]
    kappa = values["kappa"] if preset == "textbook" else 1.0
    if kappa * lr * rho >= 1:
        law = "kappa*lr*2*rho < 2" if preset == "textbook" else "lr*2*rho < 2"
        bound = 1 / (kappa * rho)
        raise ValueError(f"lr: {lr:g} is too large for the coupling: must be < {bound:g} ({law}); use {bound / 10:g}")
    if preset == "priced" and values["kappa"] * values["eta"] > 2:
        bound = 2 / values["kappa"]
        raise ValueError(f"eta: {values['eta']:g} is too large: must be <= {bound:g} (kappa*eta <= 2); lower it")


def entry_time(entry: Tensor, step: int, before: Tensor, after: Tensor, lam: float, two_sided: bool) -> Tensor:
    """Update the times of first entry, in steps, with the crossing inside step `step` (1-based).

    V is taken as linear inside a step, so a unit whose V goes from `before` to `after` crosses `lam` at
    step - 1 + (lam - before) / (after - before); with `two_sided` the side is the sign of `after`.

    Shapes: all (num_units,), float64; `entry` is inf where a unit has not entered.
    """
    side = after.sign() if two_sided else torch.ones_like(after)
    start, end = side * before, side * after
    crossing = step - 1 + (lam - start) / (end - start)
    return torch.where(entry.isinf() & (end > lam), crossing, entry)
