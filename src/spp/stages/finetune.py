"""Stage `finetune`: one member, by now a small dense network, is trained on."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from spp.plan.recipes import RecipeConfig
from spp.stages.context import StageRun
from spp.stages.devices import seed_everything
from spp.stages.evaluation import evaluate
from spp.stages.member import FILE_NAME, describe_member, load_member, member_file, write_member
from spp.stages.opening import open_samples, open_teacher
from spp.stages.training import WeightTraining, train
from spp.tasks.task import Batch, Task


class MemberTraining(WeightTraining):
    """Trains a member; single weights that were pruned stay zero.

    Args:
        member: the compact network.
        recipe: of the training.
        task: what the network is for.
        num_steps: steps of the whole training.
        run: of the stage.
        teacher: see TrainingPass.
        sparse: names of the parameters that hold such weights.
    """

    def __init__(
        self,
        member: nn.Module,
        recipe: RecipeConfig,
        task: Task,
        num_steps: int,
        run: StageRun,
        teacher: nn.Module | None,
        sparse: Iterable[str],
    ) -> None:
        super().__init__(member, recipe, task, num_steps, run, teacher)
        for name in sparse:
            self.register_buffer(_buffer(name), member.get_parameter(name) != 0, persistent=False)
        self.sparse = tuple(sparse)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Set the pruned weights back before the moving average sees them."""
        for name in self.sparse:
            self.model.get_parameter(name).mul_(self.get_buffer(_buffer(name)))
        super().on_train_batch_end(outputs, batch, batch_idx)


def _buffer(name: str) -> str:
    return "kept_" + name.replace(".", "_")


def run(stage: StageRun) -> dict[str, Any]:
    """Train a member by the recipe."""
    recipe = RecipeConfig.from_spec(stage.config["recipe"], "finetune")
    budget, seed = stage.config["budget"], stage.config["seed"]
    seed_everything(seed)
    data, task = open_samples(stage, recipe.batch_size, recipe.augment, seed)
    source = stage.input_artifacts("family") / member_file(budget["value"])
    description = describe_member(source)
    member = load_member(source, drop_path=recipe.drop_path, runtime=stage.runtime.model).train()
    num_steps = recipe.num_steps(data.steps_per_epoch)
    sparse = description.get("sparse", ())
    teacher = open_teacher(stage, recipe, data, task)
    module = MemberTraining(member, recipe, task, num_steps, stage, teacher, sparse)
    member.load_state_dict(train(module, data, stage))
    stage.leave_to_leader()

    write_member(stage.artifacts / FILE_NAME, member, description)
    return {
        "budget": budget,
        "macs": description["macs"],
        "params": description["params"],
        "dense": stage.input_summary("family")["dense"],
        "widths": description["widths"],
        "task": task.name,
        "headline": task.headline,
        "val": evaluate(member, data.val_dataloader(), task, stage),
        "epochs": recipe.epochs,
        "finetune_seconds": stage.fit_seconds,
    }
