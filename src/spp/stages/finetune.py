"""Stage `finetune`: one member, by now a small dense network, is trained on and measured on the test set."""

import time
from typing import Any

import pytorch_lightning as pl

from spp.plan.config import DataConfig, RecipeConfig
from spp.stages.context import StageRun
from spp.stages.member import FILE_NAME, describe_member, load_member, write_member
from spp.stages.prune import member_file
from spp.stages.training import Classifier, build_data, evaluate, fit


def run(stage: StageRun) -> dict[str, Any]:
    """Train a member, then look at the test set once: with its weights before and after."""
    recipe = RecipeConfig.read(stage.config["recipe"], "finetune")
    budget = stage.config["budget"]
    seed = stage.config["seed"]
    pl.seed_everything(seed, verbose=False)
    data = build_data(DataConfig.read(stage.config["data"], "data"), recipe, seed, stage.runtime)
    source = stage.input_artifacts("family") / member_file(budget["value"])
    description = describe_member(source)
    member = load_member(source, drop_path=recipe.drop_path)

    started = time.monotonic()
    if recipe.epochs > 0:
        num_steps = recipe.epochs * data.steps_per_epoch
        module = Classifier(member.train(), recipe, data.num_classes, num_steps, stage)
        member.load_state_dict(fit(module, data, stage))
    seconds = time.monotonic() - started

    write_member(stage.artifacts / FILE_NAME, member, description)
    before = evaluate(load_member(source), data.test_dataloader(), data.num_classes, stage)
    after = evaluate(member, data.test_dataloader(), data.num_classes, stage)
    family = stage.input_summary("family")
    return {
        "budget": budget,
        "macs": description["macs"],
        "params": description["params"],
        "dense": family["dense"],
        "widths": description["widths"],
        "test_before": before,
        "test": after,
        "val": evaluate(member, data.val_dataloader(), data.num_classes, stage),
        "epochs": recipe.epochs,
        "finetune_seconds": seconds,
    }
