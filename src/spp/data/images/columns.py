"""Tables of encoded images as the Hugging Face hub has them."""

from collections.abc import Sequence
from typing import NamedTuple

IMAGE_COLUMNS = ("image", "img")
"""Encoded images: bytes, or a struct with `bytes` and perhaps `path`."""
LABEL_COLUMNS = ("label", "labels")


class Columns(NamedTuple):
    """Names of the columns that are read."""

    image: str
    label: str


def find_columns(names: Sequence[str]) -> Columns | None:
    """The columns of images and of labels, or None if one is not there."""
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    return None if image is None or label is None else Columns(image, label)
