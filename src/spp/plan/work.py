"""How much a stage computes, by its config alone: multiply-adds, and steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spp.plan.compare import Spec, SpecOf

_BACKWARD_OF_WEIGHTS = 3
"""Passes of a step that trains weights: one forward, and a backward pass of twice that."""
_BACKWARD_OF_INPUTS = 2
"""Passes of a step through frozen weights: the backward pass only goes on to the inputs of each layer."""

_PASSES = {
    "dense": _BACKWARD_OF_WEIGHTS,
    "update": _BACKWARD_OF_INPUTS,
    "search": _BACKWARD_OF_WEIGHTS,
    "prune": _BACKWARD_OF_WEIGHTS,
    "finetune": _BACKWARD_OF_WEIGHTS,
}
KINDS = (*_PASSES, "repair", "measure")
"""Kinds of stages whose work is known."""

_VALIDATES = ("dense", "finetune")
"""Kinds that look at the validation split after every epoch."""


@dataclass(frozen=True)
class NetworkSize:
    """Of a dense network: multiply-adds of one sample, parameters, and units that can be cut."""

    macs: float
    params: float
    units: float


@dataclass(frozen=True)
class Work:
    """What a stage computes in all: multiply-adds, training steps (a forward pass alone counts a third), and whether
    the steps are in bf16."""

    macs: float
    num_steps: float
    is_bf16: bool = False


SizeOf = Callable[[Mapping[str, Any], Mapping[str, Any]], NetworkSize | None]
"""The size of the dense network of a model's config for a data set's; None where it is not known."""


def work_of(spec: Spec, spec_of: SpecOf, size_of: SizeOf) -> Work | None:
    """What a stage computes: multiply-adds of its network x samples x epochs x passes.

    Args:
        spec: of the stage.
        spec_of: specs of its inputs.
        size_of: sizes of dense networks.

    Returns:
        None where network or number of samples are not known before the stage runs, and for other kinds.
    """
    config = spec["config"]
    if spec["kind"] not in KINDS:
        return None
    model, counts = _model_of(spec, spec_of), _samples(config.get("data", {}))
    size = None if model is None else size_of(model, config["data"])
    if size is None or counts is None:
        return None
    num_train, num_val, num_test = counts
    macs = size.macs * _share(config.get("budget"), size)
    recipe = config.get("recipe") or {}
    batch_size = max(1, recipe.get("batch_size") or 1)
    if spec["kind"] == "repair":
        # The dense network and each member once over a few samples; solving for the maps is small beside it.
        settings = config["repair"]
        num_members = len(config.get("budget", {}).get("values", (1,)))
        return _forward(size.macs * (1 + num_members), settings["num_samples"], settings["batch_size"])
    if spec["kind"] == "measure":
        # A member on the test set, on validation, and on the test set as it was before its finetuning.
        return _forward(macs, 2 * num_test + num_val if config.get("budget") else num_test + num_val, batch_size)
    # Through a head alone no gradient goes back: the forward pass is all.
    epochs = (recipe.get("epochs") or 0) + (recipe.get("head_epochs") or 0) / _BACKWARD_OF_WEIGHTS
    if not epochs:
        return _forward(macs, num_val, batch_size)
    passes = macs * _PASSES[spec["kind"]]
    if recipe.get("distill_weight"):
        teacher = size_of(config["teacher"], config["data"]) if "teacher" in config else size
        if teacher is None:
            return None
        passes += teacher.macs
    num_validated = num_val if spec["kind"] in _VALIDATES else 0
    return Work(
        macs=epochs * (num_train * passes + num_validated * macs),
        num_steps=epochs * (num_train // batch_size + math.ceil(num_validated / batch_size) / _BACKWARD_OF_WEIGHTS),
        is_bf16="bf16" in str(recipe.get("precision", "")),
    )


def _forward(macs: float, num_samples: int, batch_size: int) -> Work:
    return Work(macs * num_samples, math.ceil(num_samples / batch_size) / _BACKWARD_OF_WEIGHTS)


def _model_of(spec: Spec, spec_of: SpecOf) -> Mapping[str, Any] | None:
    """The config of the dense network that a stage comes from: its own, or that of an input."""
    if "model" in spec["config"]:
        model: Mapping[str, Any] = spec["config"]["model"]
        return model
    for ref in spec["inputs"].values():
        parent = spec_of(ref["kind"], ref["key"])
        found = None if parent is None else _model_of(parent, spec_of)
        if found is not None:
            return found
    return None


def _samples(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Samples of train without validation, of validation, and of test."""
    splits = data.get("fingerprint", {}).get("splits")
    if not splits:
        return None
    own_validation = splits.get("val", splits.get("validation"))
    if own_validation is not None:
        return splits["train"], own_validation, splits["test"]
    num_val = round(splits["train"] * data.get("val_fraction", 0))
    return splits["train"] - num_val, num_val, splits["test"]


def _share(budget: Mapping[str, Any] | None, size: NetworkSize) -> float:
    """The part of the dense network's multiply-adds that a member of this budget has; of a budget in other units the
    part of those, which is near it."""
    if budget is None or "value" not in budget:
        return 1.0
    value = float(budget["value"])
    total = {"macs": size.macs, "params": size.params, "units": size.units}.get(budget["kind"], value)
    return value if value <= 1 else min(1.0, value / total)
