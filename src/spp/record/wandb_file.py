"""Reads the files that W&B runs leave on the disk, for which wandb itself has no reader.

A .wandb file is a header of 7 bytes and then a log in LevelDB's format: blocks of 32 KiB with pieces of records, a
record being one protobuf message. A process that was killed leaves a torn last record, which is left out.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OFFLINE = "offline-"
"""How the folder of a run begins that was not sent to the server while it ran."""

_BLOCK_BYTES = 32768
_FILE_HEADER = struct.Struct("<4sHB")
_FILE_MAGIC = (b":W&B", 0xBEE1)
_PIECE_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class LocalRun:
    """What a run knows at the end of its last segment; each start of its process wrote one.

    Attributes:
        id: of the run, the same in all its segments.
        folders: the segments' folders in the order of their start.
        config: at the end.
        summary: at the end, with the last values of the logged rows.
    """

    id: str
    folders: tuple[Path, ...]
    config: dict[str, Any]
    summary: dict[str, Any]


@dataclass(frozen=True)
class WandbFile:
    """What a .wandb file holds.

    Attributes:
        records: protobuf messages (wandb_internal.Record).
        num_bytes: where the last whole record ends; what a killed process began to write may follow.
        is_damaged: whether what follows is no torn record but something else.
    """

    records: list[bytes]
    num_bytes: int
    is_damaged: bool


@dataclass(frozen=True)
class _Segment:
    id: str
    started: float
    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]


def find_segments(root: Path) -> list[Path]:
    """The folders of runs below `root`, in the order of their start; W&B names them [offline-]run-TIME-ID."""
    found = (folder for folder in root.rglob("*run-*_*-*") if folder.is_dir())
    return sorted(found, key=lambda folder: (folder.name.removeprefix(OFFLINE), str(folder)))


def read_runs(segments: Iterable[Path]) -> list[LocalRun]:
    """The runs whose segments lie in the folders, in the order of their first start.

    Segments of one id are joined; later values count. Folders without a readable run are passed over.
    """
    by_id: dict[str, list[_Segment]] = {}
    read = (segment for folder in segments for segment in _read_folder(folder))
    for segment in sorted(read, key=lambda segment: segment.started):
        by_id.setdefault(segment.id, []).append(segment)
    return [
        LocalRun(
            id=run_id,
            folders=tuple(part.folder for part in parts),
            config={name: value for part in parts for name, value in part.config.items()},
            summary={name: value for part in parts for name, value in part.summary.items()},
        )
        for run_id, parts in by_id.items()
    ]


def read_file(file: Path) -> WandbFile:
    """The whole records of a .wandb file, up to its end or to what cannot be read.

    Raises:
        ValueError: if it is no such file.
    """
    content = file.read_bytes()
    if len(content) < _FILE_HEADER.size or _FILE_HEADER.unpack_from(content)[:2] != _FILE_MAGIC:
        raise ValueError(f"{file} is not a file of W&B; allowed: run-ID.wandb in a run's folder; check the path")
    records, end, position, begun = list[bytes](), _FILE_HEADER.size, _FILE_HEADER.size, b""
    while position + _PIECE_HEADER.size <= len(content):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _PIECE_HEADER.size:  # too little for another piece
            position += left
            continue
        checksum, length, kind = _PIECE_HEADER.unpack_from(content, position)
        position += _PIECE_HEADER.size
        piece = content[position : position + length]
        position += length
        if len(piece) < length:
            break
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            return WandbFile(records, end, is_damaged=True)
        begun = piece if kind in (_FULL, _FIRST) else begun + piece
        if kind in (_FULL, _LAST):
            records.append(begun)
            end = position
    return WandbFile(records, end, is_damaged=False)


def is_finished(content: WandbFile) -> bool:
    """Whether the process has closed its run: its last record says so."""
    return any(_parsed(message).HasField("exit") for message in content.records[-1:])


def _parsed(message: bytes) -> Any:
    from wandb.proto import wandb_internal_pb2

    protocol: Any = wandb_internal_pb2  # chooses its content by the version of protobuf, which mypy does not see
    return protocol.Record.FromString(message)


def _read_folder(folder: Path) -> Iterator[_Segment]:
    """The segment in a run's folder, if its process came far enough to describe itself."""
    from google.protobuf.message import DecodeError

    for file in sorted(folder.glob("run-*.wandb")):
        run_id, started, config, summary = "", 0.0, dict[str, Any](), dict[str, Any]()
        try:
            for message in read_file(file).records:
                record = _parsed(message)
                kind = record.WhichOneof("record_type")
                if kind == "run":
                    run_id, started = record.run.run_id, record.run.start_time.ToNanoseconds() / 1e9
                    _update(config, record.run.config)
                elif kind == "config":
                    _update(config, record.config)
                elif kind == "summary":
                    _update(summary, record.summary)
        except (DecodeError, ValueError, RecursionError):
            pass  # what came before the damage counts
        if run_id:
            yield _Segment(run_id, started, folder, config, summary)


def _update(values: dict[str, Any], record: Any) -> None:
    """Carry out a record of changes: items at a key, or at a path of keys, are set or removed."""
    for item in record.update:
        *path, last = item.nested_key or (item.key,)
        _inner(values, path)[last] = json.loads(item.value_json)
    for item in record.remove:
        *path, last = item.nested_key or (item.key,)
        _inner(values, path).pop(last, None)


def _inner(values: dict[str, Any], path: Iterable[str]) -> dict[str, Any]:
    for name in path:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[name]
    return values
