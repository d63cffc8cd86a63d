"""Networks by name, with timm, and the weights they start from."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spp.plan.config import ModelConfig

if TYPE_CHECKING:
    from spp.data.images.module import ImageData

WEIGHTS_FILE = "model.safetensors"
"""Name of the artifact that holds a dense network."""


def build_model(
    config: ModelConfig,
    *,
    img_size: int,
    in_chans: int,
    num_classes: int,
    drop_path: float = 0.0,
    pretrained: bool = False,
) -> nn.Module:
    """The dense architecture, freshly initialised or (`pretrained`) with timm's weights.

    Raises:
        ValueError: if timm knows no such model or refuses the arguments.
    """
    if not timm.is_model(config.name):
        close = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        raise ValueError(
            f"model.name: {config.name!r} is no timm model; allowed: a ViT, DeiT or Swin of timm"
            f"{' such as ' + ', '.join(close) if close else ''}; use model.name=deit_tiny_patch16_224"
        )
    arguments = {"img_size": img_size, "in_chans": in_chans, "num_classes": num_classes, **config.kwargs}
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    try:
        return timm.create_model(config.name, pretrained=pretrained, **arguments)
    except Exception as error:
        if "img_size" in str(error) and "img_size" not in config.kwargs:
            # No transformer: built as it is, so that it can be refused for what it is.
            return timm.create_model(config.name, in_chans=in_chans, num_classes=num_classes)
        raise ValueError(
            f"model.kwargs: {arguments} do not fit {config.name} ({error}); allowed: the arguments of its timm "
            "constructor; correct model.kwargs or data.img_size"
        ) from None


def build_for(config: ModelConfig, data: "ImageData", drop_path: float = 0.0, pretrained: bool = False) -> nn.Module:
    """The dense architecture for a data set: its image size, channels and classes."""
    return build_model(
        config,
        img_size=data.img_size,
        in_chans=data.in_chans,
        num_classes=data.num_classes,
        drop_path=drop_path,
        pretrained=pretrained,
    )


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


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` strictly.

    Raises:
        ValueError: if names or shapes differ; the line names `source` and the first difference.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"model.weights: {source!r} does not fit the model ({lines[0] if lines else error}); allowed: the weights "
            "of model.name with model.kwargs; correct one of them"
        ) from None
