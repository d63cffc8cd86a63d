"""What can be found out in seconds before hours are spent: can the models be built, pruned, and made this small?"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import default_collate

from spp.data.images.broken import BrokenImageError
from spp.data.loaders import check_augment, open_data
from spp.data.module import DataModule
from spp.dynamics.budget import Budget, OutOfReachError, absolute_size
from spp.methods.reach import RANKING_KINDS, refusals
from spp.methods.registry import load_method
from spp.methods.search import SearchRequest
from spp.methods.units.snapvit.sweeps import check_blocks
from spp.models.build import build
from spp.models.config import TRAIN
from spp.models.registry import in_words_of_teacher
from spp.models.weights import load_given
from spp.plan.keys import canonical_json
from spp.plan.one_shot import OneShotSetup
from spp.plan.recipes import PassConfig
from spp.plan.setup import PointSetup, Setup
from spp.stages.distillation import Distillation
from spp.stages.finite import tensors_of
from spp.stages.opening import describe_dense, encoder_of
from spp.stages.preflight_language import check_language_fit
from spp.stages.teacher import build_teacher
from spp.structure.attention_weights import attention_points
from spp.structure.find import find_pairs
from spp.structure.hidden import hidden_points
from spp.structure.inputs import call
from spp.structure.masked import MaskedModel
from spp.structure.towers import pairs_of_tower
from spp.tasks.registry import build_task
from spp.tasks.task import Task
from spp.text import reason_of

_NUM_COMPARED = 8
"""Samples that are looked at; where all of them are alike and even, they were not read as what they are."""
SEARCH_RECIPES = ("update", "search")
MEASURED_LIKE = "finetune"
"""The recipe whose inputs the measuring has, also where nothing is finetuned."""


def check_all(setups: Mapping[str, PointSetup]) -> dict[str, dict[float, str]]:
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
        self._data: dict[str, DataModule] = {}
        self._networks: dict[str, MaskedModel] = {}

    def check(self, setup: PointSetup) -> dict[float, str]:
        if isinstance(setup, OneShotSetup):
            self._check_one_shot(setup)
            return {}
        assert isinstance(setup, Setup)
        data_key = canonical_json([setup.data.plain(), setup.runtime.data])
        if data_key not in self._data:
            self._data[data_key] = _open_data(setup)
        data = self._data[data_key]
        for name, recipe in setup.recipes.items():
            if self._is_new("recipe", data_key, setup.task.plain(), name, recipe.plain()):
                _check_recipe(setup, name, recipe, data)
        if setup.method.samples_targets and self._is_new("sampling", data_key, setup.task.plain()):
            _open_task(setup, data).check_sampling()
        if setup.method.is_driven_by_dense and self._is_new("distance", data_key, setup.task.plain()):
            _open_task(setup, data).check_distillation()
        model = setup.model.plain()
        network_key = canonical_json([data_key, setup.task.plain(), model, setup.runtime.model, setup.budget.towers])
        if network_key not in self._networks:
            self._networks[network_key] = _build(setup, data)
        masked = self._networks[network_key]
        if setup.repair.starts_from_dense:
            check_blocks(masked.model, setup.repair.kind)
        for name, recipe in setup.recipes.items():
            if recipe.distills and not recipe.is_empty:
                teacher = None if setup.teacher is None else setup.teacher.plain()
                compared = [recipe.distill_hidden > 0, recipe.distill_attention > 0]
                if self._is_new("teacher", network_key, teacher, compared, dict(recipe.augment)):
                    _check_teacher(setup, name, recipe, masked.model)
        if self._is_new("budget", network_key, setup.budget.plain(), setup.method.min_units):
            for size in setup.budget.values:
                absolute_size(masked.pairs, setup.budget.kind, size, setup.method.min_units, field="budget.values")
        out_of_reach = self._out_of_reach(setup, network_key, masked)
        recipe = next(setup.recipes[name] for name in SEARCH_RECIPES if name in setup.recipes)
        num_steps = recipe.num_steps(data.num_train_samples // recipe.batch_size)
        request = SearchRequest(num_steps=num_steps, seed=setup.seed, batch_size=recipe.batch_size)
        asked = [num_steps, recipe.batch_size]
        question = canonical_json([network_key, setup.method.plain(), setup.budget.plain(), asked])
        if question not in self._refused:
            self._refused[question] = _build_search(setup, masked, request)
        return out_of_reach | self._refused[question]

    def _out_of_reach(self, setup: Setup, network_key: str, masked: MaskedModel) -> dict[float, str]:
        """The budgets that the selection from an order of the units cannot serve."""
        if setup.method.kinds[0] not in RANKING_KINDS:
            return {}
        question = canonical_json([network_key, setup.method.selection_settings(), setup.budget.plain()])
        if question not in self._refused:
            budget = setup.budget
            self._refused[question] = refusals(
                setup.method, masked.pairs, budget.kind, budget.values, budget.multiple_of, budget.form
            )
        return self._refused[question]

    def _check_one_shot(self, setup: OneShotSetup) -> None:
        model, network = setup.model.plain(), None
        lengths = [setup.data.plain(), setup.calibration.length]
        if not self._is_new(
            "language", setup.runtime.data, model, setup.runtime.model, setup.sparsity.plain(), lengths
        ):
            return
        if setup.model.weights == TRAIN:
            data = _open_data(setup)
            _check_recipe(setup, "dense", setup.dense, data)
            with torch.random.fork_rng():
                task = _open_task(setup, data)
                network = build(describe_dense(setup.model, data, task, setup.runtime.model), setup.runtime.model)
            _check_fit(network, data, task)
        check_language_fit(setup, network)

    def _is_new(self, *question: Any) -> bool:
        line = canonical_json(question)
        is_new = line not in self._asked
        self._asked.add(line)
        return is_new


def _open_data(setup: PointSetup) -> DataModule:
    encode = encoder_of(setup.data, setup.runtime.model)
    return open_data(
        setup.data, setup.runtime.data, batch_size=1, augment={}, seed=setup.seed, num_workers=0, encode=encode
    )


def _open_task(setup: PointSetup, data: DataModule) -> Task:
    return build_task(setup.task, setup.runtime.task, data.facts)


def _check_recipe(setup: PointSetup, name: str, recipe: PassConfig, data: DataModule) -> None:
    """Refuse what data or task do not know, and a batch larger than data whose number only opening them tells."""
    if recipe.is_empty and name != MEASURED_LIKE:
        return
    try:
        check_augment(setup.data, recipe.augment)
        if recipe.is_empty:
            return
        task = _open_task(setup, data)
        task.training_loss(recipe)
        task.check_momentum(getattr(recipe, "momentum_weight", 0.0))
        if recipe.distills:
            task.check_distillation()
    except ValueError as error:
        is_of_recipe = str(error).split(":")[0].split(".")[0] in recipe.plain()
        raise ValueError(f"{name}.{error}" if is_of_recipe else str(error)) from None
    if recipe.batch_size > data.num_train_samples:
        raise ValueError(
            f"{name}.batch_size: {recipe.batch_size} is more than there is; allowed: up to the "
            f"{data.num_train_samples} training {data.facts.samples}; use a smaller one"
        )


def _check_teacher(setup: Setup, name: str, recipe: PassConfig, model: torch.nn.Module) -> None:
    """Refuse a teacher that does not take the recipe's inputs, knows other classes, or has other states or heads."""
    data = open_data(
        setup.data, setup.runtime.data, batch_size=1, augment=recipe.augment, seed=setup.seed, num_workers=0
    )
    task = _open_task(setup, data)
    if setup.teacher is None:
        if recipe.distill_hidden:
            _in_words_of_recipe(name, "distill_hidden", lambda: hidden_points(model))
        if recipe.distill_attention:
            _in_words_of_recipe(name, "distill_attention", lambda: attention_points(model))
        return
    with torch.random.fork_rng():
        teacher = build_teacher(setup.teacher, data, task, setup.runtime.teacher)
    try:
        _check_fit(teacher, data, task)
    except ValueError as error:
        raise ValueError(in_words_of_teacher(error)) from None
    fields = [field for field in ("distill_hidden", "distill_attention") if getattr(recipe, field)]
    if fields:
        _in_words_of_recipe(name, fields[0], lambda: _compare(model, teacher.eval(), recipe, data, task))


def _compare(
    model: torch.nn.Module, teacher: torch.nn.Module, recipe: PassConfig, data: DataModule, task: Task
) -> None:
    batch = default_collate([data.val_samples(data.split_indices[1][:1])[0]])
    Distillation(model, teacher, recipe, task).show(model, task.inputs(batch))


def _in_words_of_recipe(name: str, field: str, look: Callable[[], Any]) -> None:
    try:
        look()
    except ValueError as error:
        is_of_recipe = str(error).startswith("distill_")
        raise ValueError(f"{name}.{error}" if is_of_recipe else f"{name}.{field}: {error}") from None


def _build_search(setup: Setup, masked: MaskedModel, request: SearchRequest) -> dict[float, str]:
    """The budgets that a search refuses; whatever else it cannot do it says when it is made.

    Each is made of a copy: it may change its network, as one that cuts blocks off does.
    """
    method, config = load_method(setup.method.name), setup.method
    if "budget" not in config.kinds[0]:
        method.build_search(config, copy.deepcopy(masked), request)
        return {}
    refused = {}
    for size in setup.budget.values:
        budget = Budget(setup.budget.kind, size)
        try:
            method.build_search(config, copy.deepcopy(masked), replace(request, budget=budget))
        except OutOfReachError as error:
            refused[size] = str(error)
    return refused


def _build(setup: Setup, data: DataModule) -> MaskedModel:
    task = _open_task(setup, data)
    with torch.random.fork_rng():
        model = build(describe_dense(setup.model, data, task, setup.runtime.model), setup.runtime.model)
    if "weights_file" in setup.runtime.model:
        load_given(model, setup.model, setup.runtime.model["weights_file"])
    # First, as whoever counts its cost has it look at a sample, too.
    _check_fit(model, data, task)
    pairs = find_pairs(model, per_head=setup.model.per_head)
    return MaskedModel(model, pairs_of_tower(model, pairs, setup.budget.towers))


@torch.no_grad()
def _check_fit(model: torch.nn.Module, data: DataModule, task: Task) -> None:
    """Refuse a network that cannot take the data's samples, or whose outputs are not what the task expects."""
    _check_inputs(data, task)
    samples = data.val_samples(data.split_indices[1][:1])
    batch = default_collate([samples[0], samples[0]])
    try:
        outputs = call(model.eval(), task.inputs(batch))
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"model: {type(model).__name__} cannot take the {data.facts.samples} of {data.facts.name} ({reason}); "
            "allowed: networks for inputs of their shape; correct the model or the data"
        ) from None
    finally:
        model.train()
    task.check_outputs(outputs, 2)


def _check_inputs(data: DataModule, task: Task) -> None:
    """Refuse inputs that are not finite, or say nothing: each of them even, and all the same."""
    positions = data.split_indices[1][:_NUM_COMPARED]
    try:
        samples_of_val = data.val_samples(positions)
        inputs = [task.inputs(default_collate([samples_of_val[place]])) for place in range(len(positions))]
    except BrokenImageError:
        return  # the stage that comes to it names it
    tensors = [tensor for one in inputs for tensor in tensors_of(one)]
    name, samples = data.facts.name, data.facts.samples
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(
            f"data: the {samples} of {name} hold numbers that are not finite; allowed: finite numbers; correct the data"
        )
    first = tensors[0] if len(tensors) >= _NUM_COMPARED else None
    if first is not None and all(_is_even(tensor) and torch.equal(tensor, first) for tensor in tensors):
        raise ValueError(
            f"data: {len(tensors)} {samples} of {name} are all the same constant ({float(first.flatten()[0]):g} as the "
            f"model sees it); allowed: {samples} that differ; look at the files, and how their numbers are read"
        )


def _is_even(tensor: torch.Tensor) -> bool:
    """Whether every channel of a sample (1, C, ...) has one value."""
    channels = tensor.flatten(2) if tensor.ndim > 2 else tensor
    return bool((channels == channels[..., :1]).all())
