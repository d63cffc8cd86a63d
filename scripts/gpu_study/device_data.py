"""Images that lie on the device whole, and are augmented there in batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spp.data.loaders import open_data
from spp.data.registry import read_data

PADDING = 4


@dataclass(frozen=True)
class DeviceData:
    """Normalised images and labels."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int = 10

    def batches(self, batch_size: int, *, is_augmented: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in a drawn order; the last batch that is not full is left out."""
        order = torch.randperm(len(self.images), device=self.images.device)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            images = self.images[chosen]
            yield (shifted_and_flipped(images) if is_augmented else images), self.labels[chosen]


def shifted_and_flipped(images: Tensor) -> Tensor:
    """Every image moved by up to PADDING pixels each way, zeros outside, and half of them mirrored."""
    count, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    device = images.device
    rows = torch.randint(2 * PADDING + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * PADDING + 1, (count, 1), device=device) + torch.arange(width, device=device)
    is_mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(is_mirrored, columns.flip(1), columns)
    place = torch.arange(count, device=device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[place, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def cutmix(images: Tensor, labels: Tensor, num_classes: int, smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    """A box of every image replaced by that of another one, and the labels mixed by area."""
    height, width = images.shape[-2:]
    share = float(torch.rand(()))
    box_height, box_width = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top = int(torch.randint(height - box_height + 1, ()))
    left = int(torch.randint(width - box_width + 1, ()))
    other = torch.randperm(len(images), device=images.device)
    mixed = images.clone()
    box = (..., slice(top, top + box_height), slice(left, left + box_width))
    mixed[box] = images[other][box]
    kept = 1 - box_height * box_width / (height * width)
    one_hot = F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes
    return mixed, kept * one_hot + (1 - kept) * one_hot[other]


def load(name: str, root: Path | None, device: str) -> DeviceData:
    """CIFAR-10 from a folder, or the digits, which need none."""
    values = {"name": name} | ({"img_size": 8} if root is None else {"root": str(root), "img_size": 32})
    config, runtime = read_data(values, "cache")
    data = open_data(config, runtime, batch_size=500, augment={}, seed=0, num_workers=0)
    parts = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        parts += [torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])]
    return DeviceData(*(part.to(device) for part in parts))
