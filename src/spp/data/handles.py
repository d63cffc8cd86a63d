"""Reading at offsets of many files, by processes that were forked from one another."""

import os
from collections import OrderedDict
from pathlib import Path

MAX_OPEN = 64
"""Files that one process keeps open; a set may have more shards than a process may open files."""


class FileHandles:
    """Descriptors of the files read last. Every process opens its own: none is taken over from the parent."""

    def __init__(self) -> None:
        self._descriptors: OrderedDict[Path, int] = OrderedDict()
        self._process = os.getpid()

    def read(self, file: Path, offset: int, length: int) -> bytes:
        """`length` bytes of `file` from `offset` on.

        Raises:
            OSError: if it cannot be opened or read.
            EOFError: if it ends before.
        """
        content = os.pread(self._descriptor(file), length, offset)
        if len(content) < length:
            raise EOFError(f"{len(content)} bytes instead of {length}")
        return content

    def close(self) -> None:
        """Close all; what is read next is opened again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _descriptor(self, file: Path) -> int:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if file not in self._descriptors:
            if len(self._descriptors) >= MAX_OPEN:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[file] = os.open(file, os.O_RDONLY)
        self._descriptors.move_to_end(file)
        return self._descriptors[file]

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def __del__(self) -> None:
        self.close()
