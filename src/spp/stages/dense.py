"""Stage `dense`: the network that is to be pruned, trained here or given."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from safetensors.torch import load_file, save_file
from torch import nn

from spp.data.images.module import ImageData
from spp.plan.config import DataConfig, ModelConfig, RecipeConfig, UpdateConfig
from spp.plan.setup import sha256_of
from spp.stages.context import StageRun
from spp.stages.models import WEIGHTS_FILE, build_for, load_weights, read_checkpoint
from spp.stages.training import Classifier, build_data, evaluate, fit
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.pair import Pair

EVALUATION_RECIPE = RecipeConfig(epochs=0, batch_size=256, lr=1e-3)


def run(stage: StageRun) -> dict[str, Any]:
    """Train or load the dense network, measure it, and write its weights."""
    config = ModelConfig.read(stage.config["model"], "model")
    data_config = DataConfig.read(stage.config["data"], "data")
    seed = stage.config.get("seed", 0)
    recipe = RecipeConfig.read(stage.config["recipe"], "dense") if "recipe" in stage.config else EVALUATION_RECIPE
    pl.seed_everything(seed, verbose=False)
    data = stage.data = build_data(data_config, recipe, seed, stage.runtime)
    model = build_for(config, data, drop_path=recipe.drop_path, pretrained=config.weights == "pretrained")
    find_pairs(model, per_head=config.per_head)  # refuses a network we cannot prune before any time is spent on it

    if stage.runtime.weights_file is not None:
        _load_given(model, config, stage.runtime.weights_file)
    if recipe.epochs > 0:
        num_steps = recipe.epochs * data.steps_per_epoch
        module = Classifier(model, recipe, data.num_classes, num_steps, stage)
        model.load_state_dict(fit(module, data, stage))
    stage.leave_to_leader()

    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        stage.artifacts / WEIGHTS_FILE,
    )
    cost = count_cost(model.cpu(), example_input(model))
    return {
        "macs": cost.macs,
        "params": cost.params,
        "val": evaluate(model, data.val_dataloader(), data.num_classes, stage),
        "test": evaluate(model, data.test_dataloader(), data.num_classes, stage),
        "epochs": recipe.epochs,
        "architecture": {
            "model": config.plain(),
            "img_size": data.img_size,
            "in_chans": data.in_chans,
            "num_classes": data.num_classes,
        },
    }


def _load_given(model: nn.Module, config: ModelConfig, file: str) -> None:
    if f"sha256:{sha256_of(Path(file))}" != config.weights:
        raise ValueError(f"model.weights: {file!r} has changed since it was planned; allowed: the same file; run again")
    load_weights(model, read_checkpoint(Path(file)), file)


def architecture_of(stage: StageRun) -> dict[str, Any]:
    """What members of the stage's dense network are cut from, with the way in which the stage masks it."""
    return {**stage.input_summary("dense")["architecture"], "model": stage.config["model"]}


def open_dense(stage: StageRun, recipe: UpdateConfig | RecipeConfig) -> tuple[ImageData, nn.Module, list[Pair]]:
    """What every search starts from: the seeded data, the finished dense network, and its pairs."""
    config, seed = ModelConfig.read(stage.config["model"], "model"), stage.config["seed"]
    pl.seed_everything(seed, verbose=False)
    data = stage.data = build_data(DataConfig.read(stage.config["data"], "data"), recipe, seed, stage.runtime)
    model = build_for(config, data, drop_path=recipe.drop_path)
    load_weights(model, load_file(stage.input_artifacts("dense") / WEIGHTS_FILE), "the dense stage")
    return data, model, find_pairs(model, per_head=config.per_head)
