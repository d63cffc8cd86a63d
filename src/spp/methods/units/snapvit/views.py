"""Views of images, and how far the embeddings of one network are from those of another for other views."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop

from spp.methods.units.snapvit.config import NUM_GLOBAL, NUM_LOCAL, SnapViTConfig

GLOBAL_SCALE, LOCAL_SCALE = (0.25, 1.0), (0.05, 0.25)
"""Areas of the crops, as shares of the image's."""


def make_views(images: Tensor, config: SnapViTConfig) -> Tensor:
    """Views of images (samples, channels, height, width): (views, samples, ...), the global ones first."""
    if config.views == "noise":
        many = images.expand(NUM_GLOBAL + NUM_LOCAL, *images.shape)
        return many + config.noise * torch.randn_like(many)
    kinds = ((NUM_GLOBAL, GLOBAL_SCALE), (NUM_LOCAL, LOCAL_SCALE))
    shared = config.released_quirks
    by_image = [torch.cat([_crops(image, *kind, is_shared=shared) for kind in kinds]) for image in images]
    return torch.stack(by_image, dim=1)


def _crops(image: Tensor, number: int, scale: tuple[float, float], *, is_shared: bool) -> Tensor:
    """Crops of an image at its own size; shared: one for all."""
    transform: Any = RandomResizedCrop(image.shape[-2:], scale=scale)

    def draw() -> Tensor:
        box = transform.make_params([image])
        crop: Tensor = resized_crop(image, **box, size=list(image.shape[-2:]), antialias=True)
        return crop

    return draw().expand(number, *image.shape) if is_shared else torch.stack([draw() for _ in range(number)])


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images before its classifier, (samples, width)."""
    network: Any = model
    embeddings: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    return embeddings


def check_embedding(model: nn.Module) -> None:
    """Refuse a network whose embeddings are not known.

    Raises:
        ValueError: one line.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise ValueError(
            f"method.name: snapvit needs the embeddings before the classifier, and {type(model).__name__} has no "
            "forward_features and forward_head; allowed: networks of timm; use method=obs"
        )


def view_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The sum over samples and pairs of a global view t and another view s of -softmax(t) log softmax(s).

    Shapes: student (views, samples, width), teacher (global views, samples, width); embeddings of any length.
    """
    targets = F.normalize(teacher, dim=-1).softmax(-1)
    logs = F.normalize(student, dim=-1).log_softmax(-1)
    crossed = -torch.einsum("tnw,snw->ts", targets, logs)
    return crossed.sum() - crossed.diagonal().sum()
