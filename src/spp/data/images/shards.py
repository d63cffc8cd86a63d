"""root/train-*.tar (or root/train/*.tar) with <key>.jpg and <key>.cls per image: WebDataset's shards.

An image's position is its place in the shards as they are sorted by name. It is read from there by itself, so that
any order costs the same; a shard is never read through while training.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spp.data.handles import FileHandles
from spp.data.images.broken import decode, reading
from spp.data.images.folder import SUFFIXES
from spp.data.images.index import Index, IndexedImages, Listing, Row
from spp.data.images.source import Labels, SplitName
from spp.data.images.tar import Member, TarFile

_CLASS = "cls"
_MAX_CLASS_BYTES = 32


@dataclass(frozen=True)
class ShardSplit:
    """Images in shards; labels have shape (N,)."""

    files: list[Path]
    index: Index
    labels: Labels
    handles: FileHandles

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.index[index]
        file = self.files[row["file"]]
        what = f"{file}: {os.fsdecode(row['name'])}"
        with reading(what):
            content = self.handles.read(file, int(row["start"]), int(row["num_bytes"]))
        return decode(content, what), int(self.labels[index])


class ShardImages(IndexedImages):
    """A root in this form."""

    suffix = ".tar"
    contents = "train-*.tar and val-*.tar, or train/*.tar and val/*.tar, with <key>.jpg and <key>.cls per image"

    def open_split(self, name: SplitName) -> ShardSplit:
        """All images of a split."""
        index = self.index(name)
        return ShardSplit(self.files[name], index, np.ascontiguousarray(index["label"]), FileHandles())

    def list_file(self, file: Path) -> Listing:
        """The samples of a shard: members of one name up to its first dot, an image and its class."""
        archive = TarFile(file)
        try:
            contents = archive.contents()
            problems = [] if contents.damage is None else [f"{str(file)!r} {contents.damage}"]
            images, classes = _samples(contents.members, problems, file)
            rows = []
            for key, image in images.items():
                label = _class_of(archive, classes[key]) if key in classes else None
                if label is None:
                    where = f"{str(file)!r} holds {os.fsdecode(image.name)!r}"
                    problems.append(f"{where} without a number as its class in {key}.{_CLASS}")
                else:
                    rows.append(Row(image.offset, image.length, label, image.name))
        finally:
            archive.close()
        return Listing(rows, problems)


def _samples(members: list[Member], problems: list[str], file: Path) -> tuple[dict[str, Member], dict[str, Member]]:
    """Images and classes by key; other files, and hidden ones, do not count."""
    images: dict[str, Member] = {}
    classes: dict[str, Member] = {}
    for member in members:
        folder, slash, name = os.fsdecode(member.name).rpartition("/")
        stem, _, extension = name.partition(".")
        if not stem:
            continue
        is_class = extension.lower() == _CLASS
        if not is_class and f".{extension.lower()}" not in SUFFIXES:
            continue
        known, key = classes if is_class else images, f"{folder}{slash}{stem}"
        if key in known:
            problems.append(f"{str(file)!r} holds {key!r} twice")
        else:
            known[key] = member
    return images, classes


def _class_of(archive: TarFile, member: Member) -> int | None:
    text = archive.read(member.offset, min(member.length, _MAX_CLASS_BYTES)).strip()
    return int(text) if text.isdigit() and member.length <= _MAX_CLASS_BYTES else None
