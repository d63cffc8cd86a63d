"""Stages `update` (SPP's) and `search` (every other method's): one search for an order of all units, or a member."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from spp.dynamics.budget import Budget, sizes_of
from spp.dynamics.path import SolutionPath
from spp.methods.method import MethodConfig
from spp.methods.registry import load_method
from spp.methods.search import BudgetSearch, OrderSearch, Search, SearchRequest
from spp.models.build import with_arguments
from spp.models.weights import WEIGHTS_FILE, save_weights
from spp.plan.recipes import PassConfig, SearchConfig, UpdateConfig
from spp.stages.context import StageRun
from spp.stages.distillation import Distillation
from spp.stages.media import log_path
from spp.stages.member import member_file, save_member
from spp.stages.opening import DenseNetwork, cost_of_dense, masked_architecture, method_of, open_dense
from spp.stages.training import TrainingPass, WeightTraining, fit
from spp.structure.compact import compact
from spp.structure.masked import MaskedModel
from spp.tasks.task import Batch, TrainingLoss

TAUGHT: dict[str, Any] = {
    **{"distill_weight": 1.0, "distill_temperature": 1.0, "distill_kind": "soft", "distill_hidden": 0.0},
    "distill_attention": 0.0,
    **{"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0},
}
"""Of a search without labels: the dense network's outputs are all it sees, and there are no labels to change."""
_RECIPES: dict[str, type[PassConfig]] = {"update": UpdateConfig, "search": SearchConfig}


class _MovesMasks(TrainingPass):
    """Lets a method move the masks of the network in a pass."""

    search: Search

    def on_train_epoch_start(self) -> None:
        """Tell the method which epoch it is."""
        assert self.trainer.max_epochs is not None
        self.search.on_epoch_start(self.current_epoch, self.trainer.max_epochs)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss at the masks that the method wants to see."""
        self.search.before_forward()
        return super().training_step(batch, batch_idx)

    def further_outputs(self) -> Any:
        """Those of heads that the method trains along."""
        return self.search.auxiliary_outputs()

    def see_losses(self, losses: Sequence[torch.Tensor]) -> None:
        """Hand them to the method."""
        self.search.see_losses(losses)

    def on_after_backward(self) -> None:
        """The method's step, before that of the weights."""
        super().on_after_backward()
        self.search.after_backward()

    def progress_note(self) -> str:
        """What the method says, or the epoch."""
        return self.search.progress_note() or super().progress_note()

    def metrics(self) -> dict[str, float]:
        """What the method tells of itself."""
        return {**super().metrics(), **self.search.metrics()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The method's variables; masks and weights are the module's own."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["search"] = self.search.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        super().on_load_checkpoint(checkpoint)
        self.search.load_state_dict(checkpoint["search"])


class MaskSearch(_MovesMasks):
    """A search in which the masks move and the weights stand still.

    Steps with answers drawn from the network's own outputs neither mix nor smooth them. The dense network, where its
    outputs drive the other steps, has no say in these.
    """

    def __init__(
        self, search: Search, config: MethodConfig, opened: DenseNetwork, recipe: PassConfig, run: StageRun
    ) -> None:
        super().__init__(search.masked, recipe, opened.task, search.num_steps, run, opened.teacher)
        self.search = search
        self._sampling_loss = opened.task.training_loss(recipe.with_own_targets())
        self._is_driven_by_dense = config.is_driven_by_dense

    def loss_of_step(self) -> TrainingLoss:
        """The recipe's, or one for drawn answers."""
        return self._sampling_loss if self.search.samples_targets else super().loss_of_step()

    def distillation_of_step(self) -> Distillation | None:
        """None where answers are drawn in the place of what drives the masks."""
        is_silent = self._is_driven_by_dense and self.search.samples_targets
        return None if is_silent else super().distillation_of_step()

    def judged_by(self, outputs: Any, targets: Any) -> Any:
        """Labels, or answers drawn from the outputs themselves."""
        return self.task.sample_targets(outputs) if self.search.samples_targets else targets

    def configure_optimizers(self) -> Any:
        """One that moves nothing: the masks belong to the method."""
        return torch.optim.SGD(self.search.masks.values(), lr=0.0)


class JointSearch(_MovesMasks, WeightTraining):
    """A search in which the weights train by the recipe while the masks move."""

    def __init__(self, search: Search, opened: DenseNetwork, recipe: SearchConfig, run: StageRun) -> None:
        super().__init__(search.masked, recipe, opened.task, search.num_steps, run, opened.teacher)
        self.search = search

    def trained_network(self) -> nn.Module:
        """The weights are trained by the recipe; the masks belong to the method."""
        return self.search.masked.model


def run(stage: StageRun) -> dict[str, Any]:
    """Search once, and write the order (with the weights, where they moved) or the member of a budget."""
    recipe = _RECIPES[stage.kind].from_spec(stage.config["recipe"], stage.kind)
    config = method_of(stage)
    if config.is_driven_by_dense:
        recipe = replace(recipe, **TAUGHT)
    opened = open_dense(stage, recipe)
    steps_per_epoch = opened.data.steps_per_epoch
    budget = Budget(**stage.config["budget"]) if "budget" in stage.config else None
    request = SearchRequest(
        num_steps=recipe.num_steps(steps_per_epoch),
        seed=stage.config["seed"],
        batch_size=recipe.batch_size,
        budget=budget,
    )
    masked = MaskedModel(opened.model, opened.pairs, at_first_maps=config.masks_first_maps)
    search = load_method(config.name).build_search(config, masked, request)
    for name, parameter in opened.model.named_parameters():
        parameter.requires_grad_(config.trains_weights and search.trains(name))
    if search.num_steps > 0:
        fit(_module(search, config, opened, recipe, stage), opened.data, stage)
    stage.leave_to_leader()

    write = _write_order if isinstance(search, OrderSearch) else _write_member
    return {
        "num_steps": search.num_steps,
        "num_units": sum(pair.size for pair in opened.pairs),
        "epochs": _num_epochs(search, recipe, steps_per_epoch),
        "search_seconds": stage.fit_seconds,
        "dense": cost_of_dense(stage),
        **write(search, config, stage),
        **search.summary(),
    }


def _num_epochs(search: Search, recipe: PassConfig, steps_per_epoch: int) -> float:
    """Passes over the training samples, with those of the steps that the method has added."""
    is_as_asked = search.num_steps == recipe.num_steps(steps_per_epoch)
    return recipe.epochs if is_as_asked and recipe.epochs else search.num_steps / steps_per_epoch


def _module(
    search: Search, config: MethodConfig, opened: DenseNetwork, recipe: PassConfig, stage: StageRun
) -> TrainingPass:
    if config.trains_weights:
        assert isinstance(recipe, SearchConfig)
        return JointSearch(search, opened, recipe, stage)
    return MaskSearch(search, config, opened, recipe, stage)


def _write_order(search: Search, config: MethodConfig, stage: StageRun) -> dict[str, Any]:
    assert isinstance(search, OrderSearch)
    order = search.order({"method": stage.config["method"], "stage": stage.key, "seed": stage.config["seed"]})
    order.save(stage.artifacts)
    if isinstance(order, SolutionPath):
        log_path(stage.mirror, order)
    if config.trains_weights:
        save_weights(search.masked.model, stage.artifacts / WEIGHTS_FILE)
    return {"trains_weights": config.trains_weights}


def _write_member(search: Search, config: MethodConfig, stage: StageRun) -> dict[str, Any]:
    assert isinstance(search, BudgetSearch)
    budget, architecture = stage.config["budget"], masked_architecture(stage)
    masks = {name: mask.cpu() for name, mask in search.final_masks().items()}
    model, kwargs = search.final_network()
    architecture = with_arguments(architecture, kwargs)
    model, kept_weights = model.cpu(), search.final_weights()
    with torch.no_grad():
        for name, kept in kept_weights.items():
            model.get_parameter(name).mul_(kept.cpu())
    small = compact(model, masks).eval()
    header = load_method(config.name).finish_member(config, small, stage.config["seed"])
    file = stage.artifacts / member_file(budget["value"])
    cost = save_member(file, small, masks, search.pairs, architecture, kept_weights.keys(), budget=budget, **header)
    return {"members": {f"{budget['value']:.10g}": {"file": file.name, **sizes_of(cost, masks)}}}
