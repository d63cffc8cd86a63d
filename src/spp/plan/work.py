"""How much a stage computes, by its config alone: multiply-adds, and steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spp.plan.compare import Spec, SpecOf
from spp.plan.config import SNAPVIT_REPAIRS

if TYPE_CHECKING:
    from spp.methods.method import SearchCost

_BACKWARD_OF_WEIGHTS = 3
"""Passes of a step that trains weights: one forward, and a backward pass of twice that."""

_SEARCHES = ("update", "search")
_TRAININGS = ("dense", "prune", "finetune")
KINDS = (*_TRAININGS, *_SEARCHES, "repair", "measure")
"""Kinds of stages whose work is known."""

_VALIDATES = ("dense", "finetune")
"""Kinds that look at the validation split after every epoch."""


@dataclass(frozen=True)
class NetworkSize:
    """Of a dense network: multiply-adds of one sample, parameters, units that can be cut, and pairs by their kind."""

    macs: float
    params: float
    units: float
    num_pairs: Mapping[str, int] = field(default_factory=dict)

    def repair_passes(self, kind: str, share: float) -> float:
        """Forward passes through the dense network that one sample of a repair costs.

        For each map the sample goes up to it, so half of the way on average, through the dense network and through the
        member, which has a `share` of its multiply-adds. Queries and keys are two maps. SnapViT's sweeps go up to each
        block through one network of the dense one's size.
        """
        num_second = self.num_pairs.get("vo", 0) + self.num_pairs.get("mlp", 0)
        if kind in SNAPVIT_REPAIRS:
            return self.num_pairs.get("mlp", 0) / 2
        num_maps = num_second + (2 * self.num_pairs.get("qk", 0) if kind == "full" else 0)
        return num_maps * (1 + share) / 2


@dataclass(frozen=True)
class Work:
    """What a stage computes in all: multiply-adds, training steps (a forward pass alone counts a third), and whether
    the steps are in bf16."""

    macs: float
    num_steps: float
    is_bf16: bool = False


SizeOf = Callable[[Mapping[str, Any], Mapping[str, Any]], NetworkSize | None]
"""The size of the dense network of a model's config for a data set's; None where it is not known."""

CostOf = Callable[[Mapping[str, Any], int, int], "SearchCost | None"]
"""What a search costs by the settings of its method, steps of its recipe and samples of a step; None: not known."""


def work_of(spec: Spec, spec_of: SpecOf, size_of: SizeOf, cost_of: CostOf) -> Work | None:
    """What a stage computes: multiply-adds of its network x samples x epochs x passes.

    Args:
        spec: of the stage.
        spec_of: specs of its inputs.
        size_of: sizes of dense networks.
        cost_of: costs of searches.

    Returns:
        None where network or number of samples are not known before the stage runs, and for other kinds.
    """
    config = spec["config"]
    counts = _samples(config.get("data", {}))
    if spec["kind"] not in KINDS or counts is None:
        return None
    model = _model_of(spec, spec_of)
    size = None if model is None else size_of(model, config["data"])
    if size is None:
        return None
    num_train, num_val, num_test = counts
    macs = size.macs * _share(config.get("budget"), size)
    recipe = config.get("recipe") or {}
    batch_size = max(1, recipe.get("batch_size") or 1)
    if spec["kind"] == "repair":
        # Solving for the maps is small beside it.
        settings = config["repair"]
        family = spec_of(spec["inputs"]["family"]["kind"], spec["inputs"]["family"]["key"]) if spec["inputs"] else spec
        shares = _shares((family or spec)["config"].get("budget"), size)
        passes = sum(size.repair_passes(settings["kind"], share) for share in shares)
        return _forward(size.macs * passes, settings["num_samples"], settings["batch_size"])
    if spec["kind"] == "measure":
        # A member on the test set, on validation, and on the test set as it was before its finetuning.
        return _forward(macs, 2 * num_test + num_val if config.get("budget") else num_test + num_val, batch_size)
    taught = _teaching(config, size, size_of)
    if taught is None:
        return None
    if spec["kind"] in _SEARCHES:
        num_steps = recipe.get("steps") or (recipe.get("epochs") or 0) * (num_train // batch_size)
        cost = cost_of(config["method"], num_steps, batch_size) if num_steps else None
        return None if cost is None and num_steps else _search(cost, size, batch_size, taught, recipe)
    # Through a head alone no gradient goes back: the forward pass is all.
    epochs = (recipe.get("epochs") or 0) + (recipe.get("head_epochs") or 0) / _BACKWARD_OF_WEIGHTS
    if not epochs:
        return _forward(macs, num_val, batch_size)
    passes = macs * _BACKWARD_OF_WEIGHTS + taught
    num_validated = num_val if spec["kind"] in _VALIDATES else 0
    return Work(
        macs=epochs * (num_train * passes + num_validated * macs),
        num_steps=epochs * (num_train // batch_size + math.ceil(num_validated / batch_size) / _BACKWARD_OF_WEIGHTS),
        is_bf16=_is_bf16(recipe),
    )


def _search(
    cost: "SearchCost | None", size: NetworkSize, batch_size: int, taught: float, recipe: Mapping[str, Any]
) -> Work:
    """What a search computes; None: it has no steps."""
    if cost is None:
        return Work(0.0, 0.0)
    alone = cost.further_passes + cost.num_repaired * size.repair_passes("full", 1.0)
    return Work(
        macs=cost.num_steps * batch_size * (size.macs * cost.passes + taught) + alone * size.macs,
        num_steps=cost.num_steps + alone / batch_size / _BACKWARD_OF_WEIGHTS,
        is_bf16=_is_bf16(recipe),
    )


def _teaching(config: Mapping[str, Any], size: NetworkSize, size_of: SizeOf) -> float | None:
    """Multiply-adds of a teacher for one sample, 0 without; None where its size is not known."""
    if not (config.get("recipe") or {}).get("distill_weight"):
        return 0.0
    teacher = size_of(config["teacher"], config["data"]) if "teacher" in config else size
    return None if teacher is None else teacher.macs


def _is_bf16(recipe: Mapping[str, Any]) -> bool:
    return "bf16" in str(recipe.get("precision", ""))


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


def _shares(budget: Mapping[str, Any] | None, size: NetworkSize) -> list[float]:
    """As `_share`, of every member of a family."""
    budget = budget or {}
    return [_share({**budget, "value": value}, size) for value in budget.get("values", [budget.get("value", 1.0)])]


def _share(budget: Mapping[str, Any] | None, size: NetworkSize) -> float:
    """The part of the dense network's multiply-adds that a member of this budget has; of a budget in other units the
    part of those, which is near it."""
    if budget is None or "value" not in budget:
        return 1.0
    value = float(budget["value"])
    total = {"macs": size.macs, "params": size.params, "units": size.units}.get(budget["kind"], value)
    return value if value <= 1 else min(1.0, value / total)
