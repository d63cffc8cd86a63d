"""Manifests of a data set's files: what its identity is taken from."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from spp.remembered import read_remembered, write_remembered

Identity = dict[str, Any]
Stamp = list[list[Any]]


def require_root(root: str | Path | None, contents: str) -> Path:
    """The folder of a data set.

    Raises:
        ValueError: if there is none; `contents` says what belongs into it.
    """
    if root is None or not Path(root).is_dir():
        raise ValueError(
            f"data.root: {root} is no folder; allowed: a folder with {contents}; "
            "set data.root=/path/to/it or paths.data=/path/to/its/parent"
        )
    return Path(root)


def limit_train(num_available: int, num_train: int | None) -> int:
    """How many training images are used.

    Raises:
        ValueError: if `num_train` asks for more than there are, or for none.
    """
    if num_train is None:
        return num_available
    if not 0 < num_train <= num_available:
        raise ValueError(
            f"data.num_train: {num_train} is not allowed; allowed: 1 to {num_available}, or null for all; "
            "use data.num_train=null"
        )
    return num_train


def hash_file(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of a manifest given line by line."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(f"{line}\n"))  # names of files need not be UTF-8
    return digest.hexdigest()


def remember(cache: Path | None, root: Path, stamp: Stamp, compute: Callable[[], Identity]) -> Identity:
    """What `compute` returns, taken from a file in `cache` as long as the folder's `stamp` is unchanged.

    Args:
        cache: folder of the remembered identities; None computes anew.
        root: folder of the data set.
        stamp: names, sizes and times of modification that tell whether the folder changed.
        compute: reads the folder.
    """
    if cache is None:
        return compute()
    file = cache / f"data-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    known = read_remembered(file)
    if known is not None and known["stamp"] == stamp:
        identity: Identity = known["identity"]
        return identity
    identity = compute()
    write_remembered(file, {"stamp": stamp, "identity": identity})
    return identity


def stamp_of(files: Iterable[Path], root: Path) -> Stamp:
    """Relative name, size in bytes and time of modification in nanoseconds of each file or folder."""
    rows = []
    for file in files:
        stat = file.stat()
        rows.append([file.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns])
    return rows
