"""Names under which files are written until they are whole, and the removal of what dead processes left under them."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spp.process import Process, is_alive, this_process

_PREFIX = ".tmp-"


def temporary(folder: Path) -> Path:
    """A fresh name in `folder` that tells its process, so that the next worker knows whether it is in use."""
    return folder / f"{_PREFIX}{this_process().tag}-{secrets.token_hex(4)}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its place when the block ends.

    Nothing is left of it if the block raises.
    """
    new = temporary(path.parent)
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        remove(new)
        raise


def is_temporary(name: str) -> bool:
    return name.startswith(_PREFIX)


def owner_of(name: str) -> Process | None:
    """The process that a `temporary` name belongs to; None if it does not say."""
    return Process.from_tag(name.removeprefix(_PREFIX).rpartition("-")[0])


def remove_abandoned(folder: Path, *, after_seconds: float, is_alone: bool = True) -> None:
    """Remove what dead processes were writing into a folder.

    Of a process of another machine nobody here knows whether it lives: it counts as dead after `after_seconds`.

    Args:
        folder: where to look; not below.
        after_seconds: for processes of other machines.
        is_alone: whether nobody but the caller is at work there, so that what its own process left is of an earlier
            try.
    """
    for entry in scan(folder):
        if is_temporary(entry.name) and _is_abandoned(entry, after_seconds, is_alone):
            remove(Path(entry.path))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is neither."""
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except (IsADirectoryError, PermissionError):  # the latter is what some systems say of a folder
        if not path.is_dir():
            raise
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(entry: os.DirEntry[str], after_seconds: float, is_alone: bool) -> bool:
    owner = owner_of(entry.name)
    alive = None if owner is None else is_alive(owner)
    if alive is False or (owner == this_process() and is_alone):
        return True
    try:
        return alive is None and time.time() - entry.stat(follow_symlinks=False).st_mtime >= after_seconds
    except FileNotFoundError:
        return False


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing if it is not there."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
