"""Stage `finetune`: one member, by now a small dense network, is trained on and measured on the test set."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from spp.plan.config import DataConfig, RecipeConfig
from spp.stages.context import StageRun
from spp.stages.member import FILE_NAME, describe_member, load_member, member_file, write_member
from spp.stages.training import Classifier, build_data, evaluate, fit


class MemberTraining(Classifier):
    """Trains a member; single weights that were pruned stay zero.

    Args:
        sparse: names of the parameters that hold such weights.
    """

    def __init__(
        self,
        member: nn.Module,
        recipe: RecipeConfig,
        num_classes: int,
        num_steps: int,
        run: StageRun,
        sparse: Iterable[str],
    ) -> None:
        super().__init__(member, recipe, num_classes, num_steps, run)
        for name in sparse:
            self.register_buffer(_buffer(name), member.get_parameter(name) != 0, persistent=False)
        self.sparse = tuple(sparse)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Set the pruned weights back before the moving average sees them."""
        for name in self.sparse:
            self.model.get_parameter(name).mul_(self.get_buffer(_buffer(name)))
        super().on_train_batch_end(outputs, batch, batch_idx)


def _buffer(name: str) -> str:
    return "kept_" + name.replace(".", "_")


def run(stage: StageRun) -> dict[str, Any]:
    """Train a member, then look at the test set once: with its weights before and after."""
    recipe = RecipeConfig.read(stage.config["recipe"], "finetune")
    budget = stage.config["budget"]
    seed = stage.config["seed"]
    pl.seed_everything(seed, verbose=False)
    data = stage.data = build_data(DataConfig.read(stage.config["data"], "data"), recipe, seed, stage.runtime)
    source = stage.input_artifacts("family") / member_file(budget["value"])
    description = describe_member(source)
    member = load_member(source, drop_path=recipe.drop_path)

    if recipe.epochs > 0:
        num_steps = recipe.epochs * data.steps_per_epoch
        sparse = description.get("sparse", ())
        module = MemberTraining(member.train(), recipe, data.num_classes, num_steps, stage, sparse)
        member.load_state_dict(fit(module, data, stage))
    stage.leave_to_leader()

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
        "finetune_seconds": stage.fit_seconds,
    }
