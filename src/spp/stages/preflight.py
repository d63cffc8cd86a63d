"""What can be found out in seconds before hours are spent: can the models be built, pruned, and made this small?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from spp.data.images.module import ImageData
from spp.data.images.transforms import Augment
from spp.dynamics.budget import Budget, OutOfReachError, absolute_size
from spp.methods.registry import kinds_of, method_module
from spp.methods.spp import SPPConfig, build_optimizer
from spp.plan.config import RecipeConfig, UpdateConfig
from spp.plan.keys import canonical_json
from spp.plan.setup import Setup
from spp.stages.models import build_for, load_weights, read_checkpoint
from spp.stages.training import build_data
from spp.structure.masked import MaskedModel
from spp.structure.find import find_pairs


def check_all(setups: Mapping[str, Setup]) -> dict[str, dict[float, str]]:
    """Build model, data and dynamics of the points of a sweep, and compare the sizes within reach with the budgets.

    Each question is asked once: a thousand learning rates for one network build that network once.

    Args:
        setups: by name of the point.

    Returns:
        By name of the point, the budgets that its method cannot serve although others can, and why: one line.

    Raises:
        ValueError: one line, if a model is unknown, cannot be pruned, or cannot be that small.
    """
    preflight = _Preflight()
    found = {name: preflight.check(setup) for name, setup in setups.items()}
    return {name: refused for name, refused in found.items() if refused}


class _Preflight:
    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._refused: dict[str, dict[float, str]] = {}
        self._data: dict[str, ImageData] = {}
        self._networks: dict[str, MaskedModel] = {}

    def check(self, setup: Setup) -> dict[float, str]:
        data_key = canonical_json([setup.data.plain(), setup.runtime.data_root])
        if data_key not in self._data:
            self._data[data_key] = build_data(setup.data, setup.update, setup.seed, setup.runtime)
        data = self._data[data_key]
        search = "update" if isinstance(setup.method, SPPConfig) else "search"
        for stage in ("dense", search, "prune", "finetune"):
            recipe = getattr(setup, stage)
            num_processes = _num_processes(setup, stage)
            if self._is_new("recipe", data_key, stage, recipe.epochs, recipe.batch_size, recipe.augment, num_processes):
                _check_recipe(stage, recipe, data.num_train_samples, num_processes)
        network_key = canonical_json([data_key, setup.model.plain(), setup.runtime.weights_file])
        if network_key not in self._networks:
            self._networks[network_key] = _build(setup, data)
        masked = self._networks[network_key]
        recipe = getattr(setup, search)
        num_steps = recipe.epochs * (data.num_train_samples // recipe.batch_size)
        min_units = getattr(setup.method, "min_units", 1)
        if self._is_new("budget", network_key, setup.budget.plain(), min_units):
            for size in setup.budget.values:
                absolute_size(masked.pairs, setup.budget.kind, size, min_units, field="budget.values")
        question = canonical_json([network_key, setup.method.plain(), setup.budget.plain(), num_steps])
        if question not in self._refused:
            self._refused[question] = _build_search(setup, masked, num_steps)
        return self._refused[question]

    def _is_new(self, *question: Any) -> bool:
        line = canonical_json(question)
        is_new = line not in self._asked
        self._asked.add(line)
        return is_new


def _num_processes(setup: Setup, stage: str) -> int:
    """Processes that share a batch of a stage."""
    if setup.cluster.name == "debug":
        return 1
    resources = setup.cluster.resources_of(stage, setup.default_gpus)
    return resources.num_nodes * resources.num_tasks_per_node


def _check_recipe(stage: str, recipe: RecipeConfig | UpdateConfig, num_train_samples: int, num_processes: int) -> None:
    Augment.read(recipe.augment)
    if recipe.epochs > 0 and recipe.batch_size % num_processes:
        least = max(1, recipe.batch_size // num_processes) * num_processes
        raise ValueError(
            f"{stage}.batch_size: {recipe.batch_size} cannot be shared by {num_processes} processes; allowed: a "
            f"multiple of their number; use {least}"
        )
    if recipe.epochs > 0 and recipe.batch_size > num_train_samples:
        raise ValueError(
            f"{stage}.batch_size: {recipe.batch_size} is more than there is; allowed: up to the "
            f"{num_train_samples} training images; use a smaller one"
        )


def _build_search(setup: Setup, masked: MaskedModel, num_steps: int) -> dict[float, str]:
    """The budgets that a search refuses; whatever else it cannot do it says when it is made."""
    if isinstance(setup.method, SPPConfig):
        build_optimizer(setup.method, masked.masks, num_steps)
        return {}
    build = method_module(vars(setup.method)["name"]).build_search
    if "ranking" in kinds_of(setup.method):
        build(setup.method, masked, num_steps)
        return {}
    refused = {}
    for size in setup.budget.values:
        try:
            build(setup.method, masked, num_steps, Budget(setup.budget.kind, size))
        except OutOfReachError as error:
            refused[size] = str(error)
    return refused


def _build(setup: Setup, data: ImageData) -> MaskedModel:
    with torch.random.fork_rng():
        model = build_for(setup.model, data)
    if setup.model.weights == "pretrained":
        _check_classes(setup, data.num_classes)
    if setup.runtime.weights_file is not None:
        load_weights(model, read_checkpoint(Path(setup.runtime.weights_file)), setup.runtime.weights_file)
    pairs = find_pairs(model, per_head=setup.model.per_head)
    return MaskedModel(model, pairs)


def _check_classes(setup: Setup, num_classes: int) -> None:
    published = timm.get_pretrained_cfg(setup.model.name)
    if published is None or published.num_classes != num_classes:
        known = published.num_classes if published else 0
        raise ValueError(
            f"model.weights: 'pretrained' knows {known} classes and {setup.data.name} has {num_classes}; "
            "allowed: train, or a checkpoint trained on this data; train one first"
        )
