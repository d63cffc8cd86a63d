"""A recorded path as plain arrays, read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from spp.store.marker import verified

Array = NDArray[Any]
FILE_NAME = "path.safetensors"
UNIT_KINDS = {"qk": "query-key", "vo": "value-projection", "mlp": "MLP"}


@dataclass(frozen=True)
class PathArrays:
    """entry: steps until entry by pair name, inf if never; V: its last value; gamma: (num_samples, size) at `steps`.

    rank: place of every unit in the order, 0 the best, where that was refined behind the search; else None.

    Shapes: entry, V and rank (size,) by pair name, steps (num_samples,).
    """

    pairs: list[dict[str, Any]]
    meta: dict[str, Any]
    entry: dict[str, Array]
    V: dict[str, Array]
    steps: Array
    gamma: dict[str, Array]
    rank: dict[str, Array] | None = None

    @property
    def num_steps(self) -> int:
        """Length of the search in steps."""
        return int(self.meta["num_steps_taken"])

    def of_kind(self, kind: str) -> list[str]:
        """Names of the pairs of a kind, in the order of the layers."""
        return [pair["name"] for pair in self.pairs if pair["kind"] == kind]


def read_path(folder: Path) -> PathArrays:
    """Read the path in a stage's artifacts.

    Raises:
        ValueError: if there is none, or its file is damaged.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise ValueError(f"path: {file} does not exist; allowed: a finished update stage; run it first")
    try:
        verified(file)
    except ValueError as error:
        raise ValueError(f"path: {error}") from None
    try:
        return _read(file)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"path: {file} is damaged ({error}); allowed: that of a finished update stage") from None


def _read(file: Path) -> PathArrays:
    with safe_open(file, framework="np") as opened:
        header = json.loads(opened.metadata()["spp"])
        names = [pair["name"] for pair in header["pairs"]]
        return PathArrays(
            pairs=header["pairs"],
            meta=header["meta"],
            entry={name: opened.get_tensor(f"entry/{name}") for name in names},
            V={name: opened.get_tensor(f"V/{name}") for name in names},
            steps=opened.get_tensor("trace/steps"),
            gamma={name: opened.get_tensor(f"trace/gamma/{name}") for name in names},
            rank={name: opened.get_tensor(f"rank/{name}") for name in names} if "refined" in header["meta"] else None,
        )


def support_share(path: PathArrays, kind: str) -> Array:
    """Share in percent of a kind's units in the support of Gamma at each sampled step, (num_samples,)."""
    gamma = np.concatenate([path.gamma[name] for name in path.of_kind(kind)], axis=1)
    share: Array = 100 * (gamma != 0).mean(axis=1)
    return share
