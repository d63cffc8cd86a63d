"""Any data set kept as ImageNet is: root/train/<class>/* and root/val/<class>/* (or root/test).

The second folder is the test set; a validation split is taken from train. Classes are the folders of train in
alphabetical order.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from spp.data.files import Identity, hash_lines, limit_train, remember, require_root, stamp_of
from spp.data.source import Labels, Source, Split, SplitName

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CONTENTS = "train/<class>/* and val/<class>/* (or test/<class>/*)"
# ImageNet's; other photographs differ little, and networks trained on ImageNet expect these.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FolderSplit:
    """Image files, read one by one; `files` are names below `folder`, labels have shape (N,)."""

    folder: Path
    files: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file = self.folder / self.files[index]
        try:
            with Image.open(file) as image:
                return image.convert("RGB"), int(self.labels[index])
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(
                f"data.root: {str(file)!r} cannot be read as an image ({error}); allowed: image files named "
                f"{', '.join(SUFFIXES)}; replace or delete it"
            ) from None


def fingerprint(
    root: str | Path | None,
    *,
    num_train: int | None = None,
    download: bool = False,
    cache: Path | None = None,
) -> Identity:
    """See spp.data.registry.fingerprint; the manifest is the sorted relative names and sizes of all images.

    It is remembered in `cache` until a class folder's time of modification changes, that is until a file is
    added, removed or renamed.
    """
    folder, test_folder = _find(root)
    folders = [folder / "train", test_folder]
    stamp = stamp_of([part / name for part in folders for name in _class_names(part)], folder)

    def compute() -> Identity:
        lines, counts = [], []
        for part in folders:
            rows = [f"{part.name}/{name} {size}" for name, size in _walk(part)]
            counts.append(len(rows))
            lines += rows
        return {"splits": {"train": counts[0], "test": counts[1]}, "sha256": hash_lines(lines)}

    identity = remember(cache, folder, stamp, compute)
    num_used = limit_train(identity["splits"]["train"], num_train)
    return {**identity, "splits": {**identity["splits"], "train": num_used}}


def open_source(root: str | Path | None, *, num_train: int | None = None, download: bool = False) -> Source:
    """See spp.data.registry.open_source; `num_train` takes images from all classes in turn."""
    folder, test_folder = _find(root)
    classes = {name: label for label, name in enumerate(_class_names(folder / "train"))}

    @memoize
    def open_split(name: SplitName) -> Split:
        part = test_folder if name == "test" else folder / "train"
        files = [file for file, _ in _walk(part, with_size=False)]
        labels = np.array([classes[file.partition("/")[0]] for file in files], dtype=np.int64)
        if name == "train" and num_train is not None:
            kept = _first_of_every_class(labels, limit_train(len(labels), num_train))
            files, labels = [files[index] for index in kept], labels[kept]
        return FolderSplit(part, files, labels)

    return Source(num_classes=len(classes), in_chans=3, native_size=None, mean=MEAN, std=STD, open_split=open_split)


def _find(root: str | Path | None) -> tuple[Path, Path]:
    """The root and the folder of the test set."""
    folder = require_root(root, CONTENTS)
    test_folder = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    if test_folder is None or not (folder / "train").is_dir():
        raise ValueError(f"data.root: {str(folder)!r} lacks train, or val and test; allowed: {CONTENTS}; add them")
    for part in (folder / "train", test_folder):
        if not _class_names(part):
            raise ValueError(f"data.root: {str(part)!r} has no class folder; allowed: {CONTENTS}; add some")
    unknown = sorted(set(_class_names(test_folder)) - set(_class_names(folder / "train")))
    if unknown:
        raise ValueError(
            f"data.root: {str(test_folder)!r} has the class {unknown[0]!r}, which train lacks; allowed: "
            "the classes of train; remove or rename it"
        )
    return folder, test_folder


def _class_names(part: Path) -> list[str]:
    with os.scandir(part) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _walk(part: Path, with_size: bool = True) -> Iterator[tuple[str, int]]:
    """Name below `part` and size in bytes of every image, sorted; asking for the size costs a call per file.

    Raises:
        ValueError: if a class has no image.
    """
    for class_name in _class_names(part):
        with os.scandir(part / class_name) as entries:
            images = [entry for entry in entries if entry.name.lower().endswith(SUFFIXES)]
        if not images:
            raise ValueError(
                f"data.root: {str(part / class_name)!r} has no image; allowed: image files named "
                f"{', '.join(SUFFIXES)}; add some or remove the folder"
            )
        for entry in sorted(images, key=lambda entry: entry.name):
            yield f"{class_name}/{entry.name}", entry.stat().st_size if with_size else 0


def _first_of_every_class(labels: Labels, count: int) -> Any:
    """Positions of `count` images taken from the classes in turn; `labels` are sorted."""
    starts = np.searchsorted(labels, np.arange(labels.max() + 1))
    turn = np.arange(len(labels)) - starts[labels]
    return np.sort(np.lexsort((labels, turn))[:count])
