"""What every image set looks like to the data module."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypedDict

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
    """Where a data set lies and how it is to be read."""

    root: Path | None
    """Folder of the data set; None for those that travel with a package."""
    num_train: int | None = None
    """Use only the first so many training images; None uses all."""
    download: bool = False
    """Fetch the files into `root` if they are not there, where the data set can."""
    format: str | None = None
    """The form in which the files lie, for data sets with several; None finds it out."""
    on_error: OnError = "fail"
    """fail names the first missing or broken file and ends; skip leaves it out, and images that cannot be decoded are
    replaced while training. What was trained on may then be less than the manifest says, so "skip" is part of the
    identity."""
    cache: Path | None = None
    """Folder in which to remember the identities and the indices of large folders."""
    image_column: str | None = None
    """Of tables, the column of encoded images; None finds it out."""
    label_column: str | None = None
    """Of tables, the column of classes; None finds it out."""

    @property
    def columns(self) -> list[str | None]:
        """The columns that are asked for; empty where none is."""
        asked = [self.image_column, self.label_column]
        return asked if any(asked) else []


class Options(TypedDict, total=False):
    """The fields of an Access beside its root, as callers may give them: unchecked."""

    num_train: int | None
    download: bool
    format: str | None
    on_error: str
    cache: str | Path | None
    image_column: str | None
    label_column: str | None


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
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels, where the data say them."""

    def split(self, name: SplitName) -> Split:
        """The training or the test images."""
        return self.open_split(name)
