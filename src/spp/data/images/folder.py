"""root/train/<class>/* and root/val/<class>/*: every image a file of its own, the form ImageNet comes in.

Classes are the folders of train in alphabetical order. An image's position is its place among the sorted names; those
in folders below that of the class come after, folder by folder, as in torchvision's ImageFolder.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spp.data.files import Stamp
from spp.data.images.broken import decode
from spp.data.images.form import PARTS, complain, is_visible, refuse, stamp_with
from spp.data.images.source import Access, Labels, OnError, SplitName

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_LINKS_OF_A_LEAF = 2
"""Links to a folder that holds no folder: its name, and its own entry for itself."""
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

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._labels_by_class)

    def stamp(self) -> Stamp:
        """The folders of images; their times change when a file is added, removed or renamed."""
        classes = [folder / name for folder in self.folders.values() for name in _class_names(folder)]
        folders = [inner for folder in classes for inner in _folders_in(folder)]
        return stamp_with(folders, self.root, self.on_error)

    def manifest(self, name: SplitName) -> list[str]:
        """Relative name, of which the class is a part, and size in bytes."""
        folder = self.folders[name]
        lines = []
        for file in _walk(folder, self.on_error):
            try:
                num_bytes = (folder / file).stat().st_size
            except FileNotFoundError:
                complain(f"{str(folder / file)!r} is missing: a link leads nowhere", self.on_error)
                num_bytes = 0
            lines.append(f"{folder.name}/{file} {num_bytes}")
        return lines

    def open_split(self, name: SplitName) -> FolderSplit:
        """All images of a split; does not ask for their sizes, which would be a call per file."""
        files = list(_walk(self.folders[name], self.on_error))
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


def _folders_in(folder: Path) -> Iterator[Path]:
    """A folder and all that lie in it, however deep; not those that hidden names or links lead to."""
    yield folder
    # Most file systems count the folders in a folder among its links: a class of a thousand files is not listed then.
    if folder.stat().st_nlink == _LINKS_OF_A_LEAF:
        return
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in names:
        if not name.startswith("."):
            yield from _folders_in(folder / name)


def _walk(part: Path, on_error: OnError) -> Iterator[str]:
    """Name below `part` of every image, sorted.

    Raises:
        ValueError: if a class has no image, or holds something else under the name of an image.
    """
    for class_name in _class_names(part):
        num_found = 0
        for folder in _folders_in(part / class_name):
            with os.scandir(folder) as entries:
                found = sorted(((entry.name, entry) for entry in entries), key=itemgetter(0))
            for name, entry in found:
                if _is_image(entry, folder, on_error) and _is_utf8(folder / name, on_error):
                    num_found += 1
                    yield f"{folder.relative_to(part).as_posix()}/{name}"
        if not num_found:
            refuse(part / class_name, "has no image", f"image files named {', '.join(SUFFIXES)}")


def _is_image(entry: "os.DirEntry[str]", folder: Path, on_error: OnError) -> bool:
    if entry.is_symlink():
        # Where a link leads is a question for each; only that it leads to a folder has to be known here.
        if is_visible(entry.name, SUFFIXES):
            return True
        if entry.is_dir():
            complain(
                f"{str(folder / entry.name)!r} is a link to a folder",
                on_error,
                allowed="links to images, and folders themselves",
                remedy="put the folder there",
            )
        return False
    if entry.is_dir() or not is_visible(entry.name, SUFFIXES):
        return False
    if not entry.is_file():
        complain(
            f"{str(folder / entry.name)!r} is no file but a pipe, a socket or a device", on_error, remedy="remove it"
        )
        return False
    return True


def _is_utf8(file: Path, on_error: OnError) -> bool:
    try:
        file.name.encode()
    except UnicodeEncodeError:
        complain(
            f"{str(file)!r} has a name that is not UTF-8",
            on_error,
            allowed="names in UTF-8",
            remedy="rename it (convmv -f latin1 -t utf8)",
        )
        return False
    return True
