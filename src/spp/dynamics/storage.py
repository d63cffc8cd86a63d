"""The file of a solution path or a ranking: safetensors, with pairs, meta data and a checksum in its header."""

import dataclasses
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from spp.structure.cost import Cost
from spp.structure.pair import Pair

FILE_NAME = "path.safetensors"
HEADER = "spp"
PATH_FORMAT = "spp-path-2"
RANKING_FORMAT = "spp-ranking-1"


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What a format holds for every pair, and how messages call it."""

    keys: tuple[str, ...]
    noun: str
    writer: str


_KINDS = {
    PATH_FORMAT: _Kind(("entry", "V", "S"), "solution path", "SolutionPath.save"),
    RANKING_FORMAT: _Kind(("score",), "ranking", "Ranking.save"),
}


def write(folder: str | Path, tensors: dict[str, Tensor], pairs: list[Pair], meta: dict[str, Any], tag: str) -> Path:
    """Write `folder`/path.safetensors: whole or not at all, even if the machine fails; returns its path.

    `tag` is PATH_FORMAT or RANKING_FORMAT.

    Raises:
        ValueError: if `folder` is no path, or a file is in its place.
    """
    folder = _as_path(folder)
    content = {"format": tag, "pairs": [dataclasses.asdict(pair) for pair in pairs], "meta": meta}
    # As it will be read: keys that are no strings become some.
    content = json.loads(json.dumps(content))
    content["sha256"] = _checksum(tensors, content)
    # One entry only: safetensors writes several in random order, and equal paths should be equal bytes.
    header = {HEADER: json.dumps(content, sort_keys=True)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"path: {folder} is not allowed: a file is in its place; give another folder") from error
    file = folder / FILE_NAME
    temporary = folder / f".{FILE_NAME}.{uuid.uuid4().hex}"
    try:
        with temporary.open("wb") as stream:
            stream.write(to_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, header))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def read(where: str | Path, tag: str) -> tuple[dict[str, Tensor], list[Pair], dict[str, Any]]:
    """Read tensors, pairs and meta data from a file of format `tag`, or from its folder.

    Every pair has its tensors of shape (size,): entry, V and S in a path, score in a ranking. If a path has
    trace/steps of shape (num_samples,), every pair has its trace/gamma of shape (num_samples, size); if its order was
    refined, its rank of shape (size,).

    Raises:
        ValueError: if `where` is no path, or the file is missing, damaged or of another format.
    """
    file, kind = _file(where), _KINDS[tag]
    if not file.is_file():
        raise ValueError(f"path: {file} does not exist; give the folder or file that {kind.writer} wrote")
    try:
        with safe_open(file, framework="pt") as opened:
            content = _header(opened)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        found = content.get("format")
        if found == tag:
            return _checked(tensors, content, kind.keys)
    except SafetensorError as error:
        raise ValueError(
            f"path: {file} is truncated or no safetensors file; copy it again or rerun the search"
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"path: {file} is damaged; copy it again or rerun the search") from error
    what = f"no {kind.noun}" if found is None else repr(found)
    raise ValueError(f"path: {file} is {what}, not {tag!r}; give a file that {kind.writer} wrote")


def is_ranking(where: str | Path) -> bool:
    """Whether a file, or the one in a folder, calls itself a ranking; False where it cannot be read.

    Raises:
        ValueError: if `where` is no path.
    """
    try:
        with safe_open(_file(where), framework="pt") as opened:
            return bool(_header(opened).get("format") == RANKING_FORMAT)
    except (SafetensorError, OSError, AttributeError, ValueError, RecursionError):
        return False


def _as_path(where: str | Path) -> Path:
    if not isinstance(where, str | os.PathLike):
        raise ValueError(f"path: {type(where).__name__} is not allowed: must be a folder or file; use 'runs/path'")
    return Path(where)


def _file(where: str | Path) -> Path:
    where = _as_path(where)
    return where / FILE_NAME if where.is_dir() else where


def _header(opened: Any) -> Any:
    return json.loads((opened.metadata() or {}).get(HEADER, "{}"))


def _checked(
    tensors: dict[str, Tensor], content: dict[str, Any], keys: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[Pair], dict[str, Any]]:
    """Tensors, pairs and meta data of a file's content; raises what a damaged one leads to."""
    if content.pop("sha256") != _checksum(tensors, content):
        raise ValueError("the checksum differs")
    pairs = [_pair(values) for values in content["pairs"]]
    shapes: dict[str, tuple[int, ...]] = {f"{key}/{pair.name}": (pair.size,) for pair in pairs for key in keys}
    if "trace/steps" in tensors:
        num_samples = len(tensors["trace/steps"])
        shapes |= {f"trace/gamma/{pair.name}": (num_samples, pair.size) for pair in pairs}
    if "refined" in content["meta"]:
        shapes |= {f"rank/{pair.name}": (pair.size,) for pair in pairs}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"the shape of {name} differs")
    return tensors, pairs, content["meta"]


def _checksum(tensors: dict[str, Tensor], content: dict[str, Any]) -> str:
    """sha256 over the JSON of `content` and, by name, over what the tensors are and hold."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pair(values: dict[str, Any]) -> Pair:
    """A Pair from its JSON."""
    cost = values.pop("model_cost")
    return Pair(**values, model_cost=cost and Cost(**cost))
