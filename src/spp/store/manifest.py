"""What lies in a folder of artifacts, and whether it still does."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = ".record.json"
"""Written beside the artifacts; it holds their manifest and is not in it."""


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and sha256 of every file below `folder`, which are on disk when this returns."""
    manifest = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        manifest[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    return manifest


def differences(folder: Path, manifest: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files of `manifest` below `folder`, one line each."""
    problems = []
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != expected["size"]:
            problems.append(f"{name} has {size} bytes instead of {expected['size']}")
        elif not has_hash(path, expected["sha256"]):
            problems.append(f"{name} has another sha256 than when it was written")
    return problems


def has_hash(path: Path, sha256: str) -> bool:
    """Whether the content of a file has this hash."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def let_umask_decide(folder: Path, example: Path) -> None:
    """Give every file below `folder` the mode of `example`, which was made by `open`.

    Some libraries write what only its owner may read; a store may be shared by a group.
    """
    mode = example.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
