"""What a network is called with: one tensor, or several by the names of its forward."""

from collections.abc import Mapping
from typing import Any

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
