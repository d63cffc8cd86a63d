"""Sets of many images per file: an index tells in which file, and where in it, each image lies.

Building it reads every header of a set (minutes for ImageNet on a slow file system), so it is kept in the cache
folder, one `.npy` per split; the folder of the data itself is never written to.
"""

import hashlib
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spp.data.files import Stamp
from spp.data.images.form import complain, find_files, present_files, refuse, stamp_with
from spp.data.images.source import Access, Split, SplitName
from spp.temporary import replacing

Index = npt.NDArray[np.void]
"""One row per image with the columns of Row; `file` instead of the file's path is its place among the files."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_NUM_THREADS = 8
"""Files listed at once; it is the file system that is waited for."""


class Row(NamedTuple):
    """An image in a file of many."""

    start: int
    """Its first byte, or its row in a table."""
    num_bytes: int
    """Its size; 0 where the manifest does not know it."""
    label: int
    name: bytes


class Listing(NamedTuple):
    """What a file holds, and what of it cannot be used."""

    rows: list[Row]
    problems: list[str]


class IndexedImages(ABC):
    """A root whose splits are files with many images each.

    Raises:
        ValueError: if a split has no file, or one is missing or damaged and `access.on_error` is fail.
    """

    suffix: str
    contents: str

    def __init__(self, access: Access) -> None:
        assert access.root is not None
        self.root, self.on_error, self.cache = access.root, access.on_error, access.cache
        self.columns = access.columns
        found = find_files(self.root, self.suffix)
        for name, what in (("train", "train"), ("test", "val (or validation or test)")):
            if not found[name]:  # type: ignore[index]
                refuse(self.root, f"has no file of {what}", self.contents)
        self.files = {name: present_files(files, self.root, self.on_error) for name, files in found.items()}
        self._indices: dict[SplitName, Index] = {}

    @classmethod
    def is_in(cls, root: Path) -> bool:
        """Whether `root` holds files to train on in this form."""
        return bool(find_files(root, cls.suffix)["train"])

    @abstractmethod
    def list_file(self, file: Path) -> Listing:
        """All images of a file."""

    @abstractmethod
    def open_split(self, name: SplitName) -> Split:
        """All images of a split."""

    class_names = None

    @property
    def num_classes(self) -> int:
        """The largest class to train on, and 0 counted."""
        return 1 + int(self.index("train")["label"].max())

    def stamp(self) -> Stamp:
        """All files."""
        return self._stamp_of([file for files in self.files.values() for file in files])

    def manifest(self, name: SplitName) -> list[str]:
        """Relative name of the file, the image's name in it, its size in bytes, its class."""
        index, files = self.index(name), [file.relative_to(self.root).as_posix() for file in self.files[name]]
        columns = (index[column].tolist() for column in ("file", "name", "num_bytes", "label"))
        return [
            f"{files[file]} {os.fsdecode(image)} {num_bytes} {label}"
            for file, image, num_bytes, label in zip(*columns, strict=True)
        ]

    def index(self, name: SplitName) -> Index:
        """Where the images of a split lie.

        Raises:
            ValueError: if a file cannot be used, or a class is not one of those to train on.
        """
        if name not in self._indices:
            index = self._remembered(name)
            self._check_labels(name, index)
            self._indices[name] = index
        return self._indices[name]

    def _stamp_of(self, files: list[Path]) -> Stamp:
        asked: Stamp = [self.columns] if self.columns else []
        return asked + stamp_with(files, self.root, self.on_error)

    def _check_labels(self, name: SplitName, index: Index) -> None:
        if not len(index):
            refuse(self.root, f"has no image of {name}", self.contents)
        num_classes = int(index["label"].max()) + 1 if name == "train" else self.num_classes
        wrong = np.flatnonzero((index["label"] < 0) | (index["label"] >= num_classes))
        if len(wrong):
            row = index[wrong[0]]
            what = f"{os.fsdecode(row['name'])!r} of class {row['label']} in {self.files[name][row['file']].name!r}"
            refuse(self.root, f"has {what}", f"classes from 0 to the largest of train, {num_classes - 1}")

    def _remembered(self, name: SplitName) -> Index:
        if self.cache is None:
            return self._build(name)
        prefix = f"index-{short_hash([str(self.root.resolve()), self.suffix, self.on_error, *self.columns])}-{name}-"
        file = self.cache / f"{prefix}{short_hash(self._stamp_of(self.files[name]))}.npy"
        known = _read_index(file)
        if known is not None:
            return known
        index = self._build(name)
        self.cache.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            _write_index(partial, index)
            for outdated in self.cache.glob(f"{prefix}*.npy"):
                outdated.unlink(missing_ok=True)
        return index

    def _build(self, name: SplitName) -> Index:
        files = self.files[name]
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            listings = list(pool.map(self.list_file, files))
        for problem in (problem for listing in listings for problem in listing.problems):
            complain(problem, self.on_error)
        return _index([listing.rows for listing in listings])


def _write_index(file: Path, index: Index) -> None:
    """An .npy file with the sha256 of its content behind it: a flipped bit would give an image another class."""
    content = io.BytesIO()
    np.save(content, index)
    file.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())


def _read_index(file: Path) -> Index | None:
    """What `_write_index` wrote; None where there is no such file or it is not as it was written."""
    try:
        content = file.read_bytes()
        if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
            return None
        index: Index = np.load(io.BytesIO(content[:-_DIGEST_BYTES]), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return index


def _index(rows_by_file: Sequence[list[Row]]) -> Index:
    rows = [row for rows in rows_by_file for row in rows]
    longest = max((len(row.name) for row in rows), default=1)
    numbers = [("file", np.int32), *((name, np.int64) for name in ("start", "num_bytes", "label"))]
    index = np.empty(len(rows), dtype=[*numbers, ("name", f"S{longest}")])
    index["file"] = np.repeat(np.arange(len(rows_by_file)), [len(rows) for rows in rows_by_file])
    for place, column in enumerate(Row._fields):
        index[column] = [row[place] for row in rows]
    return index


def short_hash(value: Any) -> str:
    """A name for a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
