"""What every set of captioned images looks like, and what is refused or left out of one; without torch."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from spp.data.files import hash_lines, limit_train
from spp.data.images.broken import BrokenImageError, decode

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where captions and images lie and how they are read."""

    root: Path | None
    """Folder that the names of images are relative to."""
    file: Path | None = None
    """The file of captions."""
    on_error: str = "fail"
    """fail names the first entry that cannot be used and ends; skip leaves it out and counts it."""
    val_fraction: float = 0.1
    """Share of the images held out for validation, and as many for the test, where the file names no splits."""
    split_seed: int = 0
    """Seed of that draw."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image and its captions.

    Attributes:
        name: of the image, for messages and the identity of the data.
        captions: at least one.
        place: where it stands in the file of captions.
    """

    name: str
    captions: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class CaptionSplit:
    """The images of a split.

    Attributes:
        entries: the images with their captions.
        read: returns the image of an entry by its number; raises BrokenImageError.
    """

    entries: Sequence[CaptionedImage]
    read: Callable[[int], Image.Image]

    @property
    def labels(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The number of each entry: what spp.data.images.selection takes for classes."""
        return np.arange(len(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return self.read(number), number


@dataclass(frozen=True)
class Captions:
    """Captioned images by split.

    Attributes:
        in_chans: channels of the images.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel, likewise.
        splits: the images of each split.
        facts: what the fingerprint says beside counts and hash.
        num_skipped: entries that were left out.
        words: of the captions, where they are known without reading them; None: those of train.
    """

    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: dict[SplitName, CaptionSplit]
    facts: dict[str, Any] = field(default_factory=dict)
    num_skipped: int = 0
    words: tuple[str, ...] | None = None

    def fingerprint(self, num_train: int | None) -> dict[str, Any]:
        """Captions of train, images of val and test, and a hash of names and captions."""
        counts: dict[str, int] = {name: len(split) for name, split in self.splits.items()}
        counts["train"] = limit_train(sum(len(entry.captions) for entry in self.splits["train"].entries), num_train)
        lines = (
            "\t".join([name, entry.name, *entry.captions])
            for name, split in self.splits.items()
            for entry in split.entries
        )
        return {"splits": counts, "sha256": hash_lines(lines), **self.facts}


@dataclass(frozen=True)
class RawEntry:
    """What a line of a file says: split, image and captions, of which nothing has been checked."""

    split: str
    image: str
    captions: tuple[str, ...]
    place: str


def open_entries(
    raw: Iterable[RawEntry],
    access: Access,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    facts: dict[str, Any],
) -> Captions:
    """Captioned images from the entries of a file; colour images of any size.

    Raises:
        ValueError: one line, for the first entry without its image or with an empty caption (unless they are to be
            left out), and for a split without any.
    """
    assert access.root is not None
    root = access.root
    kept: dict[str, list[CaptionedImage]] = {name: [] for name in SPLITS}
    reasons: dict[str, list[str]] = {}
    for entry in raw:
        captions = tuple(" ".join(caption.split()) for caption in entry.captions)
        kind, words = _problem(root, entry.image, captions)
        if kind and access.on_error == "fail":
            raise ValueError(
                f"data.captions: {entry.place} {words}; allowed: images in {str(root)!r}, each with a caption; "
                "correct it, or leave such entries out by data.on_error=skip"
            )
        if kind:
            reasons.setdefault(kind, []).append(entry.place)
            captions = () if kind == "missing image" else tuple(filter(None, captions))
        if captions:
            kept[entry.split].append(CaptionedImage(entry.image, captions, entry.place))
    for problem, places in reasons.items():
        _log.warning("left out: %d with a %s, first %s", len(places), problem, places[0])
    for name in SPLITS:
        if not kept[name]:
            raise ValueError(
                f"data.captions: {str(access.file)!r} has no images of the split {name!r}; allowed: at least one of "
                f"each of {', '.join(SPLITS)}; add some"
            )
    splits = {name: CaptionSplit(kept[name], _reader(root, kept[name])) for name in SPLITS}
    num_skipped = sum(map(len, reasons.values()))
    return Captions(len(mean), mean, std, splits, facts, num_skipped)


def _problem(root: Path, image: str, captions: Sequence[str]) -> tuple[str, str]:
    """What is wrong with an entry, in a word and in the message's; empty if nothing."""
    if not (root / image).is_file():
        return "missing image", f"names the image {image!r}, which is not there"
    if not captions or not all(captions):
        return "missing caption", "has an empty caption" if captions else "has no caption"
    return "", ""


def _reader(root: Path, entries: Sequence[CaptionedImage]) -> Callable[[int], Image.Image]:
    def read(number: int) -> Image.Image:
        entry = entries[number]
        try:
            return decode(root / entry.name, str(root / entry.name))
        except BrokenImageError as error:
            what, _, remedy = str(error).partition(";")
            raise BrokenImageError(f"{what}, {entry.place};{remedy}") from None

    return read
