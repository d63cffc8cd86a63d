"""Pixels of every kind of image on one scale: 8 bits a channel."""

import numpy as np
from PIL import Image

_PER_8_BITS = 257
"""Steps of a 16-bit scale in one of an 8-bit scale: 65535 / 255."""


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB; what its numbers mean follows from its mode alone.

    Grey of 16 bits (and of 32, in which Pillow keeps some of them) goes from 0 to 65535, floats go from 0 to 1. All
    others Pillow knows: 1 bit, 8 bits, palettes, CMYK; an alpha channel is left out, as everywhere.

    Raises:
        ValueError: numbers outside of the scale of the mode.
    """
    if image.mode == "F":
        return _grey(image, largest=1.0)
    if image.mode.startswith("I"):
        return _grey(image, largest=255.0 * _PER_8_BITS)
    return image.convert("RGB")


def _grey(image: Image.Image, largest: float) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= largest):
        raise ValueError(
            f"pixels of mode {image.mode} from {pixels.min():g} to {pixels.max():g}, where 0 to {largest:g} is read"
        )
    return Image.fromarray(np.rint(pixels * (255 / largest)).astype(np.uint8)).convert("RGB")
