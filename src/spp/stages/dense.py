"""Stage `dense`: the network that is to be pruned, trained here or given."""

from typing import Any

from spp.models.build import build
from spp.models.config import ModelConfig
from spp.models.weights import WEIGHTS_FILE, load_given, save_weights
from spp.plan.recipes import DenseConfig
from spp.stages import dense_language
from spp.stages.context import StageRun
from spp.stages.dense_training import DenseTraining
from spp.stages.devices import seed_everything
from spp.stages.evaluation import evaluate
from spp.stages.opening import describe_dense, open_samples, open_teacher
from spp.stages.training import train
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, set_drop_path

GIVEN_RECIPE = DenseConfig(epochs=0, batch_size=256, lr=1e-3)
"""Of weights that are not trained here."""


def run(stage: StageRun) -> dict[str, Any]:
    """Train or load the dense network, and write its weights."""
    config = ModelConfig.from_spec(stage.config["model"], "model")
    if config.library == "causal":
        return dense_language.run(stage)
    seed = stage.config.get("seed", 0)
    is_given = "recipe" not in stage.config
    recipe = GIVEN_RECIPE if is_given else DenseConfig.from_spec(stage.config["recipe"], "dense")
    seed_everything(seed)
    data, task = open_samples(stage, recipe.batch_size, recipe.augment, seed)
    architecture = describe_dense(config, data, task, stage.runtime.model)
    model = build(architecture, stage.runtime.model)
    find_pairs(model, per_head=config.per_head)  # refuses a network we cannot prune before any time is spent on it
    set_drop_path(model, recipe.drop_path)

    if "weights_file" in stage.runtime.model:
        load_given(model, config, stage.runtime.model["weights_file"])
    if not recipe.is_empty:
        num_steps = recipe.num_steps(data.steps_per_epoch)
        teacher = open_teacher(stage, recipe, data, task)
        model.load_state_dict(train(DenseTraining(model, recipe, task, num_steps, stage, teacher), data, stage))
    stage.leave_to_leader()

    model.cpu()
    save_weights(model, stage.artifacts / WEIGHTS_FILE)
    cost = count_cost(model, example_inputs(model))
    return {
        "macs": cost.macs,
        "params": cost.params,
        "task": task.name,
        "headline": task.headline,
        "val": evaluate(model, data.val_dataloader(), task, stage),
        "epochs": recipe.head_epochs + recipe.epochs,
        "architecture": architecture,
    }
