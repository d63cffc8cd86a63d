"""Files that are whole or absent, and logs of JSON lines that survive a torn end."""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spp.store.process import Process, is_alive, this_process

_PREFIX = ".tmp-"


def temporary(folder: Path) -> Path:
    """A fresh name in `folder` that tells its process, so that the next worker knows whether it is in use."""
    return folder / f"{_PREFIX}{this_process().tag}-{secrets.token_hex(4)}"


def is_temporary(name: str) -> bool:
    return name.startswith(_PREFIX)


def owner_of(name: str) -> Process | None:
    """The process that a `temporary` name belongs to; None if it does not say."""
    return Process.from_tag(name.removeprefix(_PREFIX).rpartition("-")[0])


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` at once: readers see the old content or all of the new.

    With `durable` also after a crash of the machine.
    """
    # A sibling, because a rename is atomic only within one file system. The mode follows the umask (unlike
    # that of tempfile), because a store may be shared by a group.
    sibling = temporary(path.parent)
    try:
        with _naming(path), open(sibling, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(sibling, path)
    except BaseException:
        sibling.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """`write_bytes` for text, as UTF-8."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """`write_bytes` for JSON.

    Raises TypeError, before anything is written, for a value that JSON cannot hold.
    """
    # On one line, which is ten times as fast as an indented one: plans may have megabytes.
    write_text(path, json.dumps(value) + "\n", durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file or no whole object in it."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in one write, on a line of its own also after a torn one.

    Raises TypeError, before anything is written, for a row that JSON cannot hold.
    """
    line = json.dumps(dict(row)).encode() + b"\n"
    with _naming(path), open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines without torn ones; with `last` only so many, from its end."""
    try:
        with open(path, "rb") as file:
            if last is not None:
                # Rows of the logs that are read this way have less than 512 bytes.
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 512 * last))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows if last is None else rows[-last:]


def remove_abandoned(folder: Path, *, after_seconds: float) -> None:
    """Remove what dead processes were writing into a folder on whose work the caller alone is.

    Of a process of another machine nobody here knows whether it lives: it counts as dead after `after_seconds`.
    """
    for entry in scan(folder):
        if is_temporary(entry.name) and _is_abandoned(entry, after_seconds):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _is_abandoned(entry: os.DirEntry[str], after_seconds: float) -> bool:
    owner = owner_of(entry.name)
    alive = None if owner is None else is_alive(owner)
    # The caller is alone on it, so what its own process left is of an earlier try.
    if owner == this_process() or alive is False:
        return True
    try:
        return alive is None and time.time() - entry.stat(follow_symlinks=False).st_mtime >= after_seconds
    except FileNotFoundError:
        return False


def is_unwritable(error: OSError) -> bool:
    """Whether an error says that one may not write there, such as to a store that is mounted read only."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing if it is not there."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def require_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises FileNotFoundError if there is no such file, ValueError, in one line, if it is damaged."""
    value = read_json(path)
    if value is not None:
        return value
    raise damaged(path) if path.exists() else missing(path)


def missing(path: Path) -> FileNotFoundError:
    """What to raise where a file is not there."""
    return FileNotFoundError(errno.ENOENT, "is missing or not whole", str(path))


def damaged(path: Path) -> ValueError:
    """What to raise where a file does not hold what it should."""
    return ValueError(f"{path}: it is damaged; allowed: what spp has written; remove it and say the same spp run again")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets errors of the file system say which file it was, which a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
