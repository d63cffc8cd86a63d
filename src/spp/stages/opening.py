"""What stages open before they work: data, task, the dense network and its pairs, a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file
from torch import nn

from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.data.module import DataModule
from spp.data.registry import text_sources
from spp.data.text.module import Encode
from spp.methods.method import MethodConfig
from spp.methods.registry import config_class
from spp.models.build import Architecture, architecture_of, with_config
from spp.models.causal import CausalNetwork
from spp.models.config import TRAIN, ModelConfig
from spp.models.given import folder_of, given_inputs
from spp.models.tokenizer import open_tokenizer
from spp.models.weights import WEIGHTS_FILE, load_weights
from spp.plan.recipes import PassConfig
from spp.stages.context import StageRun
from spp.stages.devices import find_device, seed_everything
from spp.stages.language import checked_folder
from spp.stages.member import build_untrained
from spp.stages.teacher import build_teacher
from spp.structure.find import find_pairs, set_drop_path
from spp.structure.pair import Pair
from spp.structure.towers import JOINT, pairs_of_tower
from spp.tasks.config import TaskConfig
from spp.tasks.registry import build_task
from spp.tasks.task import Task


@dataclass(frozen=True)
class DenseNetwork:
    """What every search and walk starts from.

    Attributes:
        data: seeded, with the recipe's batches.
        task: what the network is for.
        model: the finished dense network.
        pairs: of that network, as the stage masks it; those of one tower where only that is pruned.
        teacher: a frozen copy of it, where the recipe has one teach.
    """

    data: DataModule
    task: Task
    model: nn.Module
    pairs: list[Pair]
    teacher: nn.Module | None


def open_samples(stage: StageRun, batch_size: int, augment: dict[str, Any], seed: int) -> tuple[DataModule, Task]:
    """The data and the task of a stage."""
    config = DataConfig.from_spec(stage.config["data"], "data")
    runtime = stage.runtime
    data = open_data(
        config,
        runtime.data,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        num_workers=runtime.num_workers,
        encode=encoder_of(config, runtime.model),
    )
    data.pins_memory = find_device(runtime.accelerator).type == "cuda"
    stage.data = data
    task = build_task(TaskConfig.from_spec(stage.config["task"], "task"), runtime.task, data.facts)
    return data, task


def encoder_of(config: DataConfig, runtime: Mapping[str, Any]) -> Encode | None:
    """How a given language model wants text; None for networks that take bytes, or no text.

    Args:
        config: of the data.
        runtime: how a worker finds the network's files.
    """
    if config.name not in text_sources() or "pretrained_folder" not in runtime:
        return None
    return open_tokenizer(folder_of(runtime)).encode


def describe_dense(config: ModelConfig, data: DataModule, task: Task, runtime: Mapping[str, Any]) -> Architecture:
    """The description of the dense network for some data and task.

    Args:
        config: which network.
        data: that it is for.
        task: that it is for.
        runtime: how a worker finds the network's files.
    """
    facts = data.facts
    is_given = config.library == "causal" and config.weights != TRAIN
    inputs = {**facts.inputs, **given_inputs(runtime)} if is_given else facts.inputs
    samples = {"name": facts.samples, "class_names": facts.class_names, "preprocessing": dict(facts.preprocessing)}
    return architecture_of(config, inputs, task.num_outputs, samples=samples, outputs=task.outputs)


def masked_architecture(stage: StageRun) -> Architecture:
    """What members of the stage's dense network are cut from, with the way in which the stage masks it."""
    return with_config(stage.input_summary("dense")["architecture"], _model_of(stage))


def _model_of(stage: StageRun) -> ModelConfig:
    return ModelConfig.from_spec(stage.config["model"], "model")


def open_dense(stage: StageRun, recipe: PassConfig) -> DenseNetwork:
    """What every search and walk starts from, seeded."""
    seed = stage.config["seed"]
    seed_everything(seed)
    data, task = open_samples(stage, recipe.batch_size, recipe.augment, seed)
    model = load_dense_of(stage, "dense")
    pairs = pairs_of_tower(
        model, find_pairs(model, per_head=_model_of(stage).per_head), stage.config.get("towers", JOINT)
    )
    set_drop_path(model, recipe.drop_path)
    return DenseNetwork(data, task, model, pairs, open_teacher(stage, recipe, data, task))


def cost_of_dense(stage: StageRun) -> dict[str, float]:
    """Multiply-adds and parameters of the whole dense network that a stage starts from."""
    summary = stage.input_summary("dense")
    return {kind: float(summary[kind]) for kind in ("macs", "params")}


def load_dense_of(stage: StageRun, role: str) -> nn.Module:
    """The finished network of a stage's input, which is a dense stage; without stochastic depth."""
    return load_dense(stage, stage.spec["inputs"][role])


def load_dense(stage: StageRun, ref: Mapping[str, str]) -> nn.Module:
    """The finished network of a dense stage, by its kind and key; without stochastic depth.

    Raises:
        ValueError: one line, if it is a given language model whose files have changed.
    """
    summary = stage.store.summary(ref["kind"], ref["key"])
    artifacts = stage.store.artifacts_dir(ref["kind"], ref["key"])
    model = build_untrained(summary["architecture"], stage.runtime.model)
    if isinstance(model, CausalNetwork):
        model.load(checked_folder(stage.store, stage.runtime.model, summary) or artifacts)
    else:
        load_weights(model, load_file(artifacts / WEIGHTS_FILE), "the dense stage")
    return model


def open_teacher(stage: StageRun, recipe: PassConfig, data: DataModule, task: Task) -> nn.Module | None:
    """The network that teaches, frozen: the stage's own teacher, else the dense one; None where the recipe has none.

    Raises:
        ValueError: one line, if a teacher of its own does not fit data or task.
    """
    if not recipe.distills:
        return None
    if "teacher" not in stage.config:
        return load_dense_of(stage, "dense").requires_grad_(False).eval()
    return build_teacher(ModelConfig.from_spec(stage.config["teacher"], "teacher"), data, task, stage.runtime.teacher)


def method_of(stage: StageRun) -> MethodConfig:
    """The settings of the method in the stage's config, those that the stage does not need at their defaults."""
    values = stage.config["method"]
    return config_class(values["name"]).from_spec(values, "method")
