"""Networks from descriptions: an architecture is plain JSON that stages hand on without looking into it."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from spp.models.config import MAX_SIZE, TRAIN, ModelConfig, numbers_in

Architecture = dict[str, Any]
"""The model's config, the form of its inputs, the number of its outputs, and what both are; see `architecture_of`."""


def architecture_of(
    config: ModelConfig,
    inputs: Mapping[str, Any],
    num_outputs: int | None,
    *,
    samples: Mapping[str, Any],
    outputs: str,
) -> Architecture:
    """The description of a dense network.

    Args:
        config: which network.
        inputs: what its constructor must know of the samples, such as img_size and in_chans of images.
        num_outputs: width of its last layer; None where the task does not say.
        samples: for those who use the network elsewhere: what its samples are called (`name`) and what they are.
        outputs: what its outputs are called.
    """
    return {
        "model": config.identity(),
        "inputs": dict(inputs),
        "num_outputs": num_outputs,
        "samples": dict(samples),
        "outputs": outputs,
    }


def config_of(architecture: Mapping[str, Any]) -> ModelConfig:
    """The config in a description."""
    return ModelConfig.from_spec(architecture["model"], "model")


def names_of(architecture: Mapping[str, Any]) -> tuple[str, str]:
    """What the inputs and the outputs of a network are called."""
    return architecture["samples"]["name"], architecture["outputs"]


def masks_per_head(architecture: Mapping[str, Any]) -> bool:
    """Whether every head's channels are masked by themselves."""
    return config_of(architecture).per_head


def with_config(architecture: Mapping[str, Any], config: ModelConfig) -> Architecture:
    """The description with another config of the same network, such as one that masks it in another way."""
    return {**architecture, "model": config.identity()}


def with_arguments(architecture: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Architecture:
    """The description of a network whose constructor has these further arguments."""
    config = config_of(architecture)
    return with_config(architecture, replace(config, kwargs={**config.kwargs, **kwargs}))


def problem_of(architecture: object) -> str:
    """What a description from anywhere lacks to be built from; "" if nothing."""
    if not isinstance(architecture, dict) or not isinstance(architecture.get("model"), dict):
        return "without the architecture's model"
    inputs = architecture.get("inputs")
    if not isinstance(inputs, dict) or "num_outputs" not in architecture:
        return "without the architecture's inputs and num_outputs"
    sizes = [number for value in (*inputs.values(), architecture["num_outputs"]) for number in numbers_in(value)]
    if not all(0 <= size <= MAX_SIZE for size in sizes):  # a token may have the number 0
        return "with inputs or num_outputs that no network has"
    if not isinstance(architecture.get("samples", {}), dict) or not isinstance(architecture.get("outputs", ""), str):
        return "without what its samples and outputs are"
    return ""


def build(architecture: Mapping[str, Any], runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """The dense network of a description: freshly initialised, or with its own weights where it is pretrained.

    Args:
        architecture: see `architecture_of`.
        runtime: where to find a factory; None: in this folder or on Python's path.

    Raises:
        ValueError: one line, if the library or the factory cannot build it.
    """
    config = config_of(architecture)
    builder = importlib.import_module(f"spp.models.{config.library}")
    network: nn.Module = builder.build(config, architecture["inputs"], architecture["num_outputs"], runtime or {})
    return network


def build_for_weights(architecture: Mapping[str, Any], runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """The dense network of a description, for weights to be loaded into: pretrained ones are not looked for."""
    return build(with_config(architecture, replace(config_of(architecture), weights=TRAIN)), runtime)
