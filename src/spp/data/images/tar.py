"""Where the files in a tar archive lie: names, offsets and lengths, so that each can be read by itself.

Read from the headers alone, in a third of tarfile's time: ustar, GNU and pax archives without compression.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BLOCK = 512
_WINDOW_BYTES = 8192
"""Bytes read at once. Headers and the small files between the images come in runs shorter than that."""

_FILE, _WITHOUT_DATA, _SPARSE = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6"), b"S"
_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_OF_ALL = b"L", b"K", b"x", b"g"


class Member(NamedTuple):
    """A regular file in an archive."""

    name: bytes
    offset: int
    """Its first byte in the archive."""
    length: int


@dataclass(frozen=True)
class Contents:
    """The regular files of an archive up to where it is damaged, in their order."""

    members: list[Member]
    damage: str | None
    """What is wrong behind the last member, as the end of a sentence; None for a whole archive."""


class _DamagedError(Exception):
    pass


class TarFile:
    """An archive open for reading; to be closed."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)
        self.num_bytes = os.fstat(self._descriptor).st_size
        self._window, self._start = b"", 0

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the archive; fewer only at its end."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._window):
            self._window = os.pread(self._descriptor, max(length, _WINDOW_BYTES), offset)
            self._start, begin = offset, 0
        return self._window[begin : begin + length]

    def contents(self) -> Contents:
        """All regular files."""
        members: list[Member] = []
        try:
            for member in self._members():
                members.append(member)  # what came before a damage counts
        except _DamagedError as error:
            return Contents(members, str(error))
        return Contents(members, None)

    def _members(self) -> Iterator[Member]:
        offset = 0
        of_next: dict[bytes, bytes] = {}
        of_all: dict[bytes, bytes] = {}
        while header := self._header(offset):
            kind = header[156:157]
            length = _number(header[124:136])
            data = offset + BLOCK
            if kind in (_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_OF_ALL):
                text = self._whole(data, length)
                if kind == _GNU_LONG_NAME:
                    of_next[b"path"] = text.partition(b"\0")[0]
                elif kind == _PAX:
                    of_next.update(_pax_records(text))
                elif kind == _PAX_OF_ALL:
                    of_all.update(_pax_records(text))
            else:
                words, of_next = {**of_all, **of_next}, {}
                if kind == _SPARSE or any(word.startswith(b"GNU.sparse") for word in words):
                    raise _DamagedError("holds a sparse file")
                name = words.get(b"path") or _name(header)
                is_old_folder = kind == b"\0" and name.endswith(b"/")
                length = 0 if kind in _WITHOUT_DATA or is_old_folder else int(words.get(b"size", length))
                if data + length > self.num_bytes:
                    raise _DamagedError(f"ends in the middle of {name.decode(errors='replace')!r}")
                if kind in _FILE and not is_old_folder:
                    yield Member(name, data, length)
            offset = data + -(-length // BLOCK) * BLOCK

    def _header(self, offset: int) -> bytes:
        """The header at an offset; empty at the mark of the end."""
        header = self._whole(offset, BLOCK)
        if not header.strip(b"\0"):
            return b""
        if _number(header[148:156]) != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
            raise _DamagedError(f"has no header of a file at byte {offset}")
        return header

    def _whole(self, offset: int, length: int) -> bytes:
        content = self.read(offset, length)
        if len(content) < length:
            raise _DamagedError("ends without the mark of an end")
        return content


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise _DamagedError("has a header with a number that is none") from None


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU archives keep times in the place of the prefix.
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax_records(text: bytes) -> dict[bytes, bytes]:
    """Lines `<length of the line> <word>=<value>`."""
    records = {}
    while text.strip(b"\0"):
        digits, space, _ = text.partition(b" ")
        if not space or not digits.isdigit() or not len(digits) < int(digits) <= len(text):
            raise _DamagedError("has a pax header that cannot be read")
        word, _, value = text[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if word == b"size" and not value.isdigit():
            raise _DamagedError("has a pax header with a size that is none")
        records[word] = value
        text = text[int(digits) :]
    return records
