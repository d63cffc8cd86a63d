"""The dense language model: trained here on bytes, or given, which is then known by its files and not copied."""

from typing import Any

import pytorch_lightning as pl

from spp.models.build import build
from spp.models.causal import CausalNetwork
from spp.models.config import TRAIN, ModelConfig
from spp.models.given import folder_of
from spp.models.pretrained import hashes_of
from spp.plan.recipes import DenseConfig
from spp.stages.context import StageRun
from spp.stages.evaluation import evaluate
from spp.stages.opening import describe_dense, open_samples
from spp.stages.training import WeightTraining, train
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs

GIVEN_BATCH_SIZE = 8
"""Windows at a time, where a given model is measured."""


def run(stage: StageRun) -> dict[str, Any]:
    """Train the network, or note which files it is in; with data its sizes and how well it does are said, too."""
    config = ModelConfig.from_spec(stage.config["model"], "model")
    is_given = config.weights != TRAIN
    files = _note_given(stage) if is_given else {}
    if "data" not in stage.config:
        stage.leave_to_leader()
        return {"files": files, "epochs": 0}
    recipe = None if is_given else DenseConfig.from_spec(stage.config["recipe"], "dense")
    if recipe is not None and recipe.distills:
        raise ValueError(
            f"dense.distill_weight: {recipe.distill_weight} is not for language models; allowed: 0; leave it out"
        )
    seed = stage.config.get("seed", 0)
    pl.seed_everything(seed, verbose=False)
    batch_size, augment = (GIVEN_BATCH_SIZE, {}) if recipe is None else (recipe.batch_size, recipe.augment)
    data, task = open_samples(stage, batch_size, augment, seed)
    architecture = describe_dense(config, data, task, stage.runtime.model)
    network = build(architecture, stage.runtime.model)
    assert isinstance(network, CausalNetwork)
    if recipe is None:
        network.load(folder_of(stage.runtime.model))
    elif recipe.epochs > 0:
        num_steps = recipe.epochs * data.steps_per_epoch
        network.load_state_dict(train(WeightTraining(network, recipe, task, num_steps, stage), data, stage))
    stage.leave_to_leader()
    network.cpu()
    if recipe is not None:
        network.save(stage.artifacts)
    cost = count_cost(network, example_inputs(network))
    return {
        "macs": cost.macs,
        "params": cost.params,
        "task": task.name,
        "headline": task.headline,
        "val": evaluate(network, data.val_dataloader(), task, stage),
        "epochs": 0 if recipe is None else recipe.epochs,
        "architecture": architecture,
        **({"files": files} if is_given else {}),
    }


def _note_given(stage: StageRun) -> dict[str, str]:
    return hashes_of(folder_of(stage.runtime.model), stage.store.root / "cache")
