"""Files that are whole or absent, and logs of JSON lines that survive a torn end.

A JSON file ends in the sha256 of all that comes before, as its last field, so that a flipped bit is noticed.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from spp.store.process import Process, is_alive, this_process

DIGEST = "sha256"
"""The field that `write_json` adds, and `read_json` takes away."""

_PREFIX = ".tmp-"
_ENDING = re.compile(rb'(?:, )?"sha256": "([0-9a-f]{64})"\}\s*')
_ENDING_BYTES = 100


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
        with naming(path), open(sibling, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        _make_way(path)
        os.replace(sibling, path)
    except BaseException:
        sibling.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """`write_bytes` for text, as UTF-8."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """`write_bytes` for a JSON object, with its sha256.

    Raises TypeError or ValueError, before anything is written, for a value that JSON cannot hold, such as NaN.
    """
    # On one line, which is ten times as fast as an indented one: plans may have megabytes.
    body = _json(value, path).removesuffix("}")
    comma = ", " if value else ""
    write_text(path, f'{body}{comma}"{DIGEST}": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n', durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file or no whole object in it.

    One without a sha256 is of a version that wrote none, and is taken.
    """
    try:
        content = path.read_bytes()
        value = json.loads(content, parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or (DIGEST in value and not _has_own_digest(content)):
        return None
    return {name: item for name, item in value.items() if name != DIGEST}


def _has_own_digest(content: bytes) -> bool:
    start = max(0, len(content) - _ENDING_BYTES)
    ending = next((found for found in _ENDING.finditer(content, start) if found.end() == len(content)), None)
    return ending is not None and hashlib.sha256(content[: ending.start()]).hexdigest().encode() == ending[1]


def _json(value: Any, path: Path) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}; allowed: finite numbers; see which number it is and why") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _make_way(path: Path) -> None:
    """Remove an empty folder in the place of a file. Raises OSError, which names it, if there is something in it."""
    if path.is_dir():
        path.rmdir()


def json_line(row: Mapping[str, Any], path: Path) -> str:
    """A row as it stands in a file of JSON lines; `path` is named where JSON cannot hold it."""
    return _json(dict(row), path) + "\n"


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in one write, on a line of its own also after a torn one.

    Raises TypeError or ValueError, before anything is written, for a row that JSON cannot hold, such as one with NaN.
    """
    line = json_line(row, path).encode()
    _make_way(path)
    with naming(path), open(path, "ab+") as file:
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
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows if last is None else rows[-last:]


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


def is_unwritable(error: OSError) -> bool:
    """Whether an error says that one may not write there, such as to a store that is mounted read only."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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
def naming(path: Path) -> Iterator[None]:
    """Lets errors of the file system say which file it was, which a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
