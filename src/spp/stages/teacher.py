"""A teacher that is not the dense network: built, and refused where it does not fit the data or the task."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from spp.data.module import DataModule
from spp.models.build import architecture_of, build
from spp.models.config import PRETRAINED, ModelConfig
from spp.models.registry import in_words_of_teacher
from spp.models.weights import load_given
from spp.tasks.task import Task

STATISTICS_TOLERANCE = 1e-3
"""By how much mean and deviation of the inputs may differ from those that a teacher was trained with."""


def build_teacher(config: ModelConfig, data: DataModule, task: Task, runtime: Mapping[str, Any]) -> nn.Module:
    """The teacher with its weights, frozen.

    Args:
        config: which network; its weights are timm's, or those of a checkpoint by their hash.
        data: whose samples it sees, as the recipe prepares them.
        task: that it is to know.
        runtime: where its checkpoint lies (`weights_file`).

    Raises:
        ValueError: one line, if timm cannot build it for these inputs, its classes are not the task's, it was trained
            on inputs of another normalisation, or the checkpoint is another one by now.
    """
    if config.weights == PRETRAINED:
        _check_published(config, data, task)
    facts = data.facts
    try:
        model = build(architecture_of(config, facts.inputs, task.num_outputs, samples={}, outputs=task.outputs))
        if "weights_file" in runtime:
            load_given(model, config, runtime["weights_file"])
    except ValueError as error:
        raise ValueError(in_words_of_teacher(error)) from None
    return model.requires_grad_(False).eval()


def _check_published(config: ModelConfig, data: DataModule, task: Task) -> None:
    """Refuse timm's weights for other classes or inputs, before they are fetched."""
    name = str(config.name) if config.tag is None else f"{config.name}.{config.tag}"
    published, facts = timm.get_pretrained_cfg(name), data.facts
    known = 0 if published is None else published.num_classes
    if published is None or known != task.num_outputs:
        raise ValueError(
            f"teacher.name: {name!r} knows {known} classes and {task.name} on {facts.name} has {task.num_outputs}; "
            "allowed: a teacher of the same classes; give a checkpoint of one by teacher.weights=FILE"
        )
    theirs = (*published.mean, *published.std)
    ours = (*facts.preprocessing.get("mean", theirs[:3]), *facts.preprocessing.get("std", theirs[3:]))
    if len(ours) != len(theirs) or any(
        abs(own - other) > STATISTICS_TOLERANCE for own, other in zip(ours, theirs, strict=True)
    ):
        raise ValueError(
            f"teacher.name: {name!r} was trained on inputs of mean {tuple(published.mean)} and deviation "
            f"{tuple(published.std)}, and the recipe's have {ours[: len(ours) // 2]} and {ours[len(ours) // 2 :]}; "
            "allowed: a teacher for inputs of the same normalisation; take other weights of timm, or augment.normalize"
        )
