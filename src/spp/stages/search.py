"""Stage `search`: the search of every method but SPP; it ends in a ranking of all units, or in one member."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spp.config import Config
from spp.dynamics.budget import Budget, dense_total, sizes_of
from spp.dynamics.ranking import Ranking
from spp.methods._search import BudgetSearch, RankingSearch, Search
from spp.methods.registry import finish_member, method_module, read_method
from spp.plan.config import SearchConfig
from spp.stages.context import StageRun
from spp.stages.dense import architecture_of, open_dense
from spp.stages.member import member_file, save_member
from spp.stages.models import WEIGHTS_FILE
from spp.stages.training import Classifier, fit
from spp.structure.compact import compact
from spp.structure.masked import MaskedModel
from spp.structure.find import find_pairs
from spp.structure.tokens import drop_tokens


class UnitSearch(Classifier):
    """Lets a method move the masks of a network, whose weights train by the recipe or stand still."""

    def __init__(self, search: Search, recipe: SearchConfig, num_classes: int, run: StageRun) -> None:
        super().__init__(search.masked, recipe, num_classes, search.num_steps, run)
        self.search = search
        self.train_loss = _JointLoss(self.train_loss, search)

    def trained_network(self) -> torch.nn.Module:
        """The weights are trained by the recipe; the masks belong to the method."""
        return self.search.masked.model

    def configure_optimizers(self) -> Any:
        """The recipe's, or one that moves nothing where the weights stand still."""
        if self.search.trains_weights:
            return super().configure_optimizers()
        return torch.optim.SGD(self.search.masks.values(), lr=0.0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss at the masks that the method wants to see."""
        self.search.before_forward()
        return super().training_step(batch, batch_idx)

    def on_after_backward(self) -> None:
        """The method's step, before that of the weights."""
        self.search.after_backward()

    def metrics(self) -> dict[str, float]:
        """What the method tells of itself."""
        return self.search.metrics()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The method's variables; masks and weights are the module's own."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["search"] = self.search.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        super().on_load_checkpoint(checkpoint)
        self.search.load_state_dict(checkpoint["search"])


class _JointLoss(torch.nn.Module):
    """The loss of the network, plus that of every other classifier that the method trains along."""

    def __init__(self, loss: torch.nn.Module, search: Search) -> None:
        super().__init__()
        self.loss = loss
        self.search = search

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = self.loss(scores, labels)
        for auxiliary in self.search.auxiliary_scores():
            total = total + self.loss(auxiliary, labels)
        return total


def run(stage: StageRun) -> dict[str, Any]:
    """Search once, and write the ranking (with the weights, where they moved) or the member of a budget."""
    recipe = SearchConfig.read(stage.config["recipe"], "search")
    config = read_method(stage.config["method"])
    data, model, pairs = open_dense(stage, recipe)
    num_steps = recipe.epochs * data.steps_per_epoch
    search = _build(config, MaskedModel(model, pairs), num_steps, stage.config)
    model.requires_grad_(search.trains_weights)
    if num_steps > 0:
        fit(UnitSearch(search, recipe, data.num_classes, stage), data, stage)
    stage.leave_to_leader()

    found = _write_ranking(search, stage) if isinstance(search, RankingSearch) else _write_member(search, config, stage)
    return {
        "num_steps": num_steps,
        "num_units": sum(pair.size for pair in pairs),
        "epochs": recipe.epochs,
        "search_seconds": stage.fit_seconds,
        "dense": {kind: dense_total(pairs, kind) for kind in ("macs", "params")},
        **found,
        **search.summary(),
    }


def _build(config: Config, masked: MaskedModel, num_steps: int, values: Mapping[str, Any]) -> Search:
    budget = [Budget(**values["budget"])] if "budget" in values else []
    search: Search = method_module(values["method"]["name"]).build_search(config, masked, num_steps, *budget)
    return search


def _write_ranking(search: RankingSearch, stage: StageRun) -> dict[str, Any]:
    meta = {"method": stage.config["method"], "stage": stage.key, "seed": stage.config["seed"]}
    scores, tokens, pairs, dense = search.scores(), search.kept_tokens(), search.pairs, search.pairs[0].model_cost
    if tokens:
        drop_tokens(search.masked.model, tokens)
        pairs = find_pairs(search.masked.model, per_head=stage.config["model"]["per_head"])
    ranking = Ranking.from_scores(scores, pairs, per_cost=search.per_cost, tokens=tokens, dense=dense, meta=meta)
    ranking.save(stage.artifacts)
    if search.trains_weights:
        weights = search.masked.model.cpu().state_dict()
        save_file({name: value.contiguous() for name, value in weights.items()}, stage.artifacts / WEIGHTS_FILE)
    return {"trains_weights": search.trains_weights}


def _write_member(search: Search, config: Config, stage: StageRun) -> dict[str, Any]:
    assert isinstance(search, BudgetSearch)
    budget, architecture = stage.config["budget"], architecture_of(stage)
    masks = {name: mask.cpu() for name, mask in search.final_masks().items()}
    model, kwargs = search.final_network()
    if kwargs:
        of_dense = architecture["model"]
        architecture["model"] = {**of_dense, "kwargs": {**of_dense["kwargs"], **kwargs}}
    model, kept_weights = model.cpu(), search.final_weights()
    with torch.no_grad():
        for name, kept in kept_weights.items():
            model.get_parameter(name).mul_(kept.cpu())
    small = compact(model, masks).eval()
    header = finish_member(config, small, stage.config["seed"])
    file = stage.artifacts / member_file(budget["value"])
    sparse = kept_weights.keys()
    cost = save_member(file, small, masks, search.pairs, architecture, sparse, budget=budget, **header)
    return {"members": {f"{budget['value']:.10g}": {"file": file.name, **sizes_of(cost, masks)}}}
