"""Weights as people have them: in checkpoints of several programs, under the prefixes of wrappers.

Nothing of a file is run: torch's weights_only loads it, with a few harmless types beside tensors allowed.
"""

import argparse
import logging
import pathlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file
from torch import Tensor

from spp.models.config import AVERAGES

_WEIGHTS = ("state_dict", "model", "model_state_dict", "teacher", "module")
_WRAPPERS = ("_orig_mod.", "module.", "model.", "net.")
"""What torch.compile, DataParallel, Lightning and others put before every name."""
_HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    scalar,
    *map(type, map(np.dtype, "fdilq?")),
)

_ALLOWED = "a .safetensors file, or a torch checkpoint that loads with weights_only"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")

_log = logging.getLogger(__name__)


def read_checkpoint(file: Path, *, ema: bool = True) -> dict[str, Tensor]:
    """Weights from a safetensors file or a torch checkpoint (also the DeiT, timm and Lightning layouts), on the CPU.

    Args:
        file: the checkpoint.
        ema: take the moving average where there is one; which was taken is said in the log.

    Raises:
        ValueError: one line, if the file cannot be read as weights.
    """
    try:
        content = _load(file)
    except Exception as error:
        raise ValueError(
            f"model.weights: {str(file)!r} cannot be read ({_reason(error)}); allowed: {_ALLOWED}; save it again"
        ) from None
    found = _find_weights(content, ema, file)
    if found is None:
        what = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"model.weights: {str(file)!r} holds no weights but {what or 'nothing'}; allowed: {_ALLOWED}; save a "
            "state_dict"
        )
    return found


def without_wrappers(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The weights under the names that a network itself gives them: without the prefixes of wrappers.

    Args:
        weights: by name.
        wanted: names of the network's weights; as soon as one is met nothing more is taken off.
    """
    names = {name: name for name in weights}
    while not set(wanted) & set(names.values()):
        shared = next((word for word in _WRAPPERS if all(name.startswith(word) for name in names.values())), None)
        if not names or shared is None:
            break
        names = {old: name.removeprefix(shared) for old, name in names.items()}
    if not set(wanted) & set(names.values()) or any("._orig_mod." in name for name in names.values()):
        names = {old: name.replace("_orig_mod.", "") for old, name in names.items()}
    return {name: weights[old] for old, name in names.items()}


def _load(file: Path) -> Any:
    if file.suffix.lower() == ".safetensors":
        return load_file(file)
    with torch.serialization.safe_globals(list(_HARMLESS)):
        return torch.load(file, map_location="cpu", weights_only=True)


def _find_weights(content: Any, ema: bool, file: Path) -> dict[str, Tensor] | None:
    """The weights in nested mappings; None where there are none."""
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return dict(content)
    for name in (*(AVERAGES if ema else ()), *_WEIGHTS):
        found = _find_weights(content.get(name), ema, file)
        if found is not None:
            if name in AVERAGES:
                _log.warning("%s: its moving average %r is taken; model.ema=false takes the others", file, name)
            return found
    return None


def _reason(error: Exception) -> str:
    foreign = _FOREIGN.search(str(error))
    if foreign is not None:
        return f"it holds a {foreign[1]}, which is code and not weights"
    lines = _ESCAPES.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__}: it is empty or cut"
