"""What a network is called with: one tensor, or several by the names of its forward."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The outputs of `model` for `inputs`."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def num_samples(inputs: Inputs) -> int:
    """The number of samples in a batch: the length of its (first) tensor."""
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
