"""The dense language model: trained here on bytes, or given, which is then known by its files and not copied."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from spp.models.causal import CausalNetwork, build
from spp.models.config import TRAIN, ModelConfig
from spp.models.conversion import convert_once
from spp.models.pretrained import hashes_of
from spp.plan.recipes import DenseConfig
from spp.stages.context import StageRun
from spp.stages.evaluation import evaluate
from spp.stages.opening import open_samples
from spp.stages.training import WeightTraining, train


def run(stage: StageRun) -> dict[str, Any]:
    """Train the network, or note which files it is in."""
    config = ModelConfig.from_spec(stage.config["model"], "model")
    if config.weights != TRAIN:
        return _note_given(stage)
    recipe, seed = DenseConfig.from_spec(stage.config["recipe"], "dense"), stage.config["seed"]
    pl.seed_everything(seed, verbose=False)
    data, task = open_samples(stage, recipe.batch_size, recipe.augment, seed)
    network = build(config, data.facts.inputs, task.num_outputs, stage.runtime.model)
    if recipe.epochs > 0:
        num_steps = recipe.epochs * data.steps_per_epoch
        network.load_state_dict(train(WeightTraining(network, recipe, task, num_steps, stage), data, stage))
    stage.leave_to_leader()
    network.cpu().save(stage.artifacts)
    return {
        "params": _num_params(network),
        "task": task.name,
        "headline": task.headline,
        "val": evaluate(network, data.val_dataloader(), task, stage),
        "epochs": recipe.epochs,
    }


def _note_given(stage: StageRun) -> dict[str, Any]:
    stage.leave_to_leader()
    runtime = stage.runtime.model
    folder = Path(runtime["folder"])
    if "gguf" in runtime:
        convert_once(Path(runtime["gguf"]), folder)
    return {"files": hashes_of(folder, stage.store.root / "cache"), "epochs": 0}


def _num_params(network: CausalNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
