"""Flat copies of the encoded images of a parquet file, in which each image can be read by itself.

A copy is `num_rows + 1` offsets (int64, little endian) and then the images one after the other. It is made by the
first process that needs it, under a name of its own, and renamed when it is whole. Processes that come meanwhile
see the claim beside it, which says whose it is, and wait; a claim whose process is gone, or that nobody touches any
more, is removed. Where two copy the same file all the same, they write the same bytes.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from spp.data.handles import FileHandles
from spp.data.images.broken import is_of_the_file
from spp.process import Process, is_alive, this_process
from spp.temporary import replacing

OFFSET_BYTES = 8
CLAIM_SECONDS = 60.0
"""A claim untouched for so long is that of a process that has ended."""
_TOUCH_SECONDS = 1.0
_POLL_SECONDS = 0.5
_BATCH_ROWS = 64

_log = logging.getLogger(__name__)


def read_packed(handles: FileHandles, pack: Path, row: int) -> bytes:
    """The encoded image of a row; empty where the table has none or its part of the file is torn."""
    begin, end = np.frombuffer(handles.read(pack, row * OFFSET_BYTES, 2 * OFFSET_BYTES), dtype="<i8").tolist()
    return handles.read(pack, begin, end - begin)


def ensure_packed(parquet: Path, column: str, pack: Path) -> None:
    """Return when `pack` is there: written by this process, or by another one that came first.

    Args:
        parquet: the table.
        column: its column of bytes; dotted for a field of a struct.
        pack: the flat copy.
    """
    claim = pack.with_suffix(".claim")
    while not pack.exists():
        pack.parent.mkdir(parents=True, exist_ok=True)
        try:
            with claim.open("x") as stream:
                stream.write(this_process().tag)
        except FileExistsError:
            _wait(pack, claim)
            continue
        _log.warning("copying the images of %s into %s, once", parquet, pack)
        try:
            _pack(parquet, column, pack, claim)
        finally:
            claim.unlink(missing_ok=True)


def _wait(pack: Path, claim: Path) -> None:
    """Until the copy is there, or the claim is gone, its process is, or it has not changed for a while by this
    machine's clock."""
    touched, since, is_told = 0, time.monotonic(), False
    while not pack.exists():
        try:
            owner, now = Process.from_tag(claim.read_text()), claim.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if owner is not None and is_alive(owner) is False:
            claim.unlink(missing_ok=True)
            return
        if not is_told:
            whom = "another process" if owner is None else f"process {owner.pid} of {owner.host}"
            text = "waiting for %s, which copies images into %s; given up once %s is untouched for %.0f s"
            _log.warning(text, whom, pack, claim, CLAIM_SECONDS)
            is_told = True
        if now != touched:
            touched, since = now, time.monotonic()
        elif time.monotonic() - since > CLAIM_SECONDS:
            claim.unlink(missing_ok=True)
            return
        time.sleep(_POLL_SECONDS)


def _pack(parquet: Path, column: str, pack: Path, claim: Path) -> None:
    import pyarrow.parquet as pq

    touched = time.monotonic()
    with replacing(pack) as new, pq.ParquetFile(parquet) as table, new.open("wb") as stream:
        offsets = np.zeros(table.metadata.num_rows + 1, dtype="<i8")
        offsets[0] = offsets.nbytes
        stream.seek(offsets.nbytes)
        for row, encoded in enumerate(_images(table, column)):
            stream.write(encoded)
            offsets[row + 1] = offsets[row] + len(encoded)
            if time.monotonic() - touched > _TOUCH_SECONDS:
                touched = time.monotonic()
                with suppress(FileNotFoundError):
                    os.utime(claim)
        stream.seek(0)
        stream.write(offsets.tobytes())


def _images(table: Any, column: str) -> Iterator[bytes]:
    """The images of all rows; what is missing is empty, and so is what follows a torn place in its row group."""
    import pyarrow as pa

    for group in range(table.metadata.num_row_groups):
        num_left = table.metadata.row_group(group).num_rows
        try:
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False):
                for cell in batch.column(0).to_pylist():
                    num_left -= 1
                    yield (cell["bytes"] if isinstance(cell, dict) else cell) or b""
        except (pa.ArrowException, OSError) as error:
            if not is_of_the_file(error):
                raise
        yield from (b"" for _ in range(num_left))
