"""The file of a solution path: safetensors, with pairs and meta data as JSON in its header."""

import dataclasses
import json
import os
import uuid
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from spp.structure.cost import Cost
from spp.structure.pairs import Pair

FILE_NAME = "path.safetensors"
HEADER = "spp"
FORMAT = "spp-path-1"


def write(folder: Path, tensors: dict[str, Tensor], pairs: list[Pair], meta: dict[str, Any]) -> Path:
    """Write `folder`/path.safetensors: whole or not at all, even if the machine fails; returns its path."""
    content = {"format": FORMAT, "pairs": [dataclasses.asdict(pair) for pair in pairs], "meta": meta}
    # One entry only: safetensors writes several in random order, and equal paths should be equal bytes.
    header = {HEADER: json.dumps(content, sort_keys=True)}
    folder.mkdir(parents=True, exist_ok=True)
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


def read(where: Path) -> tuple[dict[str, Tensor], list[Pair], dict[str, Any]]:
    """Read tensors, pairs and meta data from a path's folder or file.

    Raises:
        ValueError: if the file is missing, damaged or no solution path.
    """
    file = where / FILE_NAME if where.is_dir() else where
    if not file.is_file():
        raise ValueError(f"path: {file} does not exist; give the folder or file that SolutionPath.save wrote")
    try:
        with safe_open(file, framework="pt") as opened:
            content = json.loads((opened.metadata() or {}).get(HEADER, "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(
            f"path: {file} is truncated or no safetensors file; copy it again or rerun the search"
        ) from error
    if content.get("format") != FORMAT:
        found = content.get("format", "no solution path")
        raise ValueError(f"path: {file} is {found}, not {FORMAT}; give a file that SolutionPath.save wrote")
    return tensors, [_pair(values) for values in content["pairs"]], content["meta"]


def _pair(values: dict[str, Any]) -> Pair:
    """A Pair from its JSON."""
    cost = values.pop("model_cost")
    return Pair(**values, model_cost=cost and Cost(**cost))
