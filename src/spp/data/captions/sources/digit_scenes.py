"""Pictures of two to four handwritten digits with sentences that say which is where; made from scikit-learn's digits.

A picture of 20 x 20 pixels has four corners of 10 x 10. The digits of train, validation and test are different ones, so
that a network is measured on handwriting that it has not seen. Every picture has two sentences, which name the corners
in different orders. All of it follows from the digits and the constants here.
"""

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from spp.data.captions.source import Access, CaptionedImage, Captions, CaptionSplit, SplitName
from spp.data.images.source import Access as ImageAccess
from spp.data.sources import digits
from spp.data.split import random_words, stratified_split

SIZE, CORNER = 20, 10
NUM_SCENES: dict[SplitName, int] = {"train": 4000, "val": 500, "test": 1000}
SEED = 0
VAL_SHARE = 0.2
"""Of the digits that are for training: they make the pictures of validation."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
WORDS = tuple(sorted({*NAMES, "a", "and", "top", "bottom", "left", "right"}))
MAX_TOKENS = 4 * 4 + 1 + 2
"""Of a sentence: four digits of four words, an "and", the beginning and the end."""

MEAN, STD = (0.146,), (0.301,)


def open_captions(access: Access) -> Captions:
    """All scenes; nothing is read from a folder."""
    content = hashlib.sha256(digits._read()).hexdigest()
    return Captions(1, MEAN, STD, {name: _scenes(name) for name in NUM_SCENES}, {"digits": content}, 0, WORDS)


@cache
def _scenes(name: SplitName) -> CaptionSplit:
    pixels, labels = _digits(name)
    scenes = [_scene(number, name, len(labels)) for number in range(NUM_SCENES[name])]
    entries = [
        CaptionedImage(f"{name} {number}", _sentences(placed, labels), f"scene {number}")
        for number, placed in enumerate(scenes)
    ]
    return CaptionSplit(entries, lambda number: _picture(scenes[number], pixels))


Placed = list[tuple[int, int, int, int]]
"""Of each digit its corner, which digit it is, and its distance from the corner's upper left, in pixels."""


def _scene(number: int, name: SplitName, num_digits: int) -> Placed:
    words = random_words(17, SEED, list(NUM_SCENES).index(name), number)
    corners = sorted(np.argsort(words[1:5], kind="stable")[: 2 + int(words[0] % np.uint64(3))].tolist())
    free = np.uint64(CORNER - digits.SIZE + 1)
    return [
        (
            corner,
            int(words[5 + place] % np.uint64(num_digits)),
            int(words[9 + place] % free),
            int(words[13 + place] % free),
        )
        for place, corner in enumerate(corners)
    ]


def _sentences(placed: Placed, labels: npt.NDArray[np.int64]) -> tuple[str, str]:
    parts = [f"a {NAMES[labels[digit]]} {CORNERS[corner]}" for corner, digit, _, _ in placed]
    return tuple(" ".join([*order[:-1], "and", order[-1]]) for order in (parts, parts[::-1]))  # type: ignore[return-value]


def _picture(placed: Placed, pixels: npt.NDArray[np.uint8]) -> Image.Image:
    canvas = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for corner, digit, down, right in placed:
        top, left = CORNER * (corner // 2) + down, CORNER * (corner % 2) + right
        canvas[top : top + digits.SIZE, left : left + digits.SIZE] = pixels[digit]
    return Image.fromarray(canvas)


@cache
def _digits(name: SplitName) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    source = digits.open_source(ImageAccess(root=None))
    split = source.split("test" if name == "test" else "train")
    assert hasattr(split, "pixels")
    if name == "test":
        return split.pixels, split.labels
    train, val = stratified_split(split.labels, VAL_SHARE, SEED)
    chosen = val if name == "val" else train
    return split.pixels[chosen], split.labels[chosen]
