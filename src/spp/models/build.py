"""Networks from descriptions: an architecture is plain JSON that stages hand on without looking into it."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from spp.models.config import ModelConfig

Architecture = dict[str, Any]
"""The model's config, the form of its inputs, and the number of its outputs."""


def architecture_of(config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None) -> Architecture:
    """The description of a dense network.

    Args:
        config: which network.
        inputs: what its constructor must know of the samples, such as img_size and in_chans of images.
        num_outputs: width of its last layer; None where the task does not say.
    """
    return {"model": config.identity(), "inputs": dict(inputs), "num_outputs": num_outputs}


def config_of(architecture: Mapping[str, Any]) -> ModelConfig:
    """The config in a description."""
    return ModelConfig.from_spec(architecture["model"], "model")


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
