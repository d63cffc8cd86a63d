"""Weights from files: safetensors and torch checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spp.models.finite import first_not_finite
from spp.models.registry import sha256_of

WEIGHTS_FILE = "model.safetensors"
"""Name of the artifact that holds a dense network."""


def load_given(model: nn.Module, weights: str, file: str) -> None:
    """Load the checkpoint whose hash a config names as `weights`.

    Raises:
        ValueError: one line, if it is another one by now, cannot be read, or does not fit.
    """
    if f"sha256:{sha256_of(Path(file))}" != weights:
        raise ValueError(f"model.weights: {file!r} has changed since it was planned; allowed: the same file; run again")
    load_weights(model, read_checkpoint(Path(file)), file)


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Weights from a safetensors file or a torch checkpoint (also the DeiT and timm layouts); never unpickles code.

    Raises:
        ValueError: if the file cannot be read as weights.
    """
    allowed = "a .safetensors file, or a torch checkpoint that loads with weights_only"
    try:
        content: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"model.weights: {str(file)!r} cannot be read ({reason}); allowed: {allowed}; save it again"
        ) from None
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"model.weights: {str(file)!r} holds no weights; allowed: {allowed}; save a state_dict")
    return {name.removeprefix("module."): value for name, value in content.items()}


def save_weights(model: nn.Module, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights of a model, on the CPU or not, to a safetensors file.

    Raises:
        ValueError: they are not finite; nothing is written then.
    """
    _require_finite(model, file.name, "use a smaller lr")
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, file, metadata=metadata)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` strictly.

    Raises:
        ValueError: if names or shapes differ, or a weight is not finite; the line names `source` and the first
            difference.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"model.weights: {source!r} does not fit the model ({lines[0] if lines else error}); allowed: the weights "
            "of model.name with model.kwargs; correct one of them"
        ) from None
    _require_finite(model, source, "take a checkpoint from before it diverged")


def _require_finite(model: nn.Module, source: str, remedy: str) -> None:
    name = first_not_finite(model)
    if name is not None:
        raise ValueError(f"model.weights: {name!r} of {source!r} is not finite; allowed: finite numbers; {remedy}")
