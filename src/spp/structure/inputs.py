"""What a network is called with: one tensor, or several by the names of its forward."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]
_OF_TRANSFORMERS = ("logits", "last_hidden_state")


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The outputs of `model` for `inputs`; of what transformers' networks put out the scores, or the last states."""
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    return next((getattr(outputs, name) for name in _OF_TRANSFORMERS if hasattr(outputs, name)), outputs)


def num_samples(inputs: Inputs) -> int:
    """The number of samples in a batch: the length of its (first) tensor."""
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def moved(batch: Inputs, device: torch.device) -> Inputs:
    """A batch on a device.

    Raises:
        ValueError: it is something else, as what a loader with labels hands out.
    """
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: value.to(device) for name, value in batch.items()}
    raise ValueError(
        f"batches: a {type(batch).__name__} is not allowed; allowed: tensors, or mappings of them; of pairs of images "
        "and labels use [images for images, labels in loader]"
    )
