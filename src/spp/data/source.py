"""What every data set looks like to the rest of the package."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

SplitName = Literal["train", "test"]
Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
OnError = Literal["fail", "skip"]
"""What a missing or broken image does: end the run with its name, or be left out and counted."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where a data set lies and how it is to be read; see spp.data.registry.fingerprint."""

    root: Path | None
    num_train: int | None = None
    download: bool = False
    format: str | None = None
    on_error: OnError = "fail"
    cache: Path | None = None


class Split(Protocol):
    """Images and labels by position."""

    @property
    def labels(self) -> Labels:
        """Class of every image, shape (N,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image (mode L or RGB) and its class.

        Raises:
            BrokenImageError: if it is missing or cannot be decoded.
        """


@dataclass(frozen=True)
class ArraySplit:
    """A split held decoded in memory: pixels of shape (N, H, W) or (N, H, W, 3) and labels of shape (N,)."""

    pixels: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), int(self.labels[index])


@dataclass(frozen=True)
class Source:
    """A data set: its constants, and its splits, which are read when first asked for."""

    num_classes: int
    in_chans: int
    native_size: int | None
    """Height and width in pixels; None where they differ from image to image."""
    mean: tuple[float, ...]
    """Mean of each channel over the training images, on the scale 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""
    open_split: Callable[[SplitName], Split]

    def split(self, name: SplitName) -> Split:
        """The training or the test images."""
        return self.open_split(name)
