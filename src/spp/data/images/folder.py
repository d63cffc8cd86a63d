"""root/train/<class>/* and root/val/<class>/*: every image a file of its own, the form ImageNet comes in.

Classes are the folders of train in alphabetical order. An image's position is its place among the sorted names.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spp.data.files import Stamp
from spp.data.images.broken import decode
from spp.data.images.form import PARTS, complain, is_visible, refuse, stamp_with
from spp.data.images.source import Access, Labels, SplitName

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_CONTENTS = "train/<class>/* and val/<class>/* (or test/<class>/*)"


@dataclass(frozen=True)
class FolderSplit:
    """Image files, read one by one; `files` are names below `folder` (bytes), labels have shape (N,)."""

    folder: Path
    files: npt.NDArray[np.bytes_]  # a list of as many strings would be copied into every worker process, bit by bit
    labels: Labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file = self.folder / os.fsdecode(self.files[index])
        return decode(file, str(file)), int(self.labels[index])


class FolderImages:
    """A root in this form.

    Raises:
        ValueError: if the classes of the splits do not fit together.
    """

    contents = _CONTENTS

    def __init__(self, access: Access) -> None:
        assert access.root is not None
        self.root, self.on_error = access.root, access.on_error
        self.folders = _find(self.root)

    @classmethod
    def is_in(cls, root: Path) -> bool:
        """Whether `root` holds classes to train on as folders."""
        return bool(_class_names(root / "train"))

    @cached_property
    def _labels_by_class(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(_class_names(self.folders["train"]))}

    @property
    def num_classes(self) -> int:
        """Number of class folders."""
        return len(self._labels_by_class)

    def stamp(self) -> Stamp:
        """The folders of the classes; their times change when a file is added, removed or renamed."""
        classes = [folder / name for folder in self.folders.values() for name in _class_names(folder)]
        return stamp_with(classes, self.root, self.on_error)

    def manifest(self, name: SplitName) -> list[str]:
        """Relative name, of which the class is a part, and size in bytes."""
        folder = self.folders[name]
        lines = []
        for file in _walk(folder):
            try:
                num_bytes = (folder / file).stat().st_size
            except FileNotFoundError:
                complain(f"{str(folder / file)!r} is missing: a link leads nowhere", self.on_error)
                num_bytes = 0
            lines.append(f"{folder.name}/{file} {num_bytes}")
        return lines

    def open_split(self, name: SplitName) -> FolderSplit:
        """All images of a split; does not ask for their sizes, which would be a call per file."""
        files = list(_walk(self.folders[name]))
        labels = [self._labels_by_class[file.partition("/")[0]] for file in files]
        names = np.array([os.fsencode(file) for file in files], dtype=np.bytes_)
        return FolderSplit(self.folders[name], names, np.array(labels, dtype=np.int64))


def _find(root: Path) -> dict[SplitName, Path]:
    train = root / "train"
    test = next((root / part for part in PARTS["test"] if (root / part).is_dir()), None)
    if test is None or not train.is_dir():
        refuse(root, "lacks train, or val and test", _CONTENTS)
    for part in (train, test):
        if not _class_names(part):
            refuse(part, "has no class folder", _CONTENTS)
    unknown = sorted(set(_class_names(test)) - set(_class_names(train)))
    if unknown:
        raise ValueError(
            f"data.root: {str(test)!r} has the class {unknown[0]!r}, which train lacks; allowed: "
            "the classes of train; remove or rename it"
        )
    return {"train": train, "test": test}


def _class_names(part: Path) -> list[str]:
    if not part.is_dir():
        return []
    with os.scandir(part) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _walk(part: Path) -> Iterator[str]:
    """Name below `part` of every image, sorted.

    Raises:
        ValueError: if a class has no image.
    """
    for class_name in _class_names(part):
        names = [name for name in os.listdir(part / class_name) if is_visible(name, SUFFIXES)]
        if not names:
            refuse(part / class_name, "has no image", f"image files named {', '.join(SUFFIXES)}")
        for name in sorted(names):
            yield f"{class_name}/{name}"
