"""Files that are whole or absent, and logs of JSON lines that survive a torn end.

A JSON file ends in the sha256 of all that comes before, as its last field, so that a flipped bit is noticed.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from spp.temporary import replacing

DIGEST = "sha256"
"""The field that `write_json` adds, and `read_json` takes away."""

_ENDING = re.compile(rb'(?:, )?"sha256": "([0-9a-f]{64})"\}\s*')
_ENDING_BYTES = 100


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` at once: readers see the old content or all of the new.

    With `durable` also after a crash of the machine.
    """
    # A sibling, because a rename is atomic only within one file system. The mode follows the umask (unlike
    # that of tempfile), because a store may be shared by a group.
    with replacing(path) as sibling:
        with naming(path), open(sibling, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        _make_way(path)


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


def is_unwritable(error: OSError) -> bool:
    """Whether an error says that one may not write there, such as to a store that is mounted read only."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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
