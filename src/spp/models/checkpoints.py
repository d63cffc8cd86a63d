"""Weights as people have them: in checkpoints of several programs, under the prefixes of wrappers.

Nothing of a file is run: torch's weights_only loads it, with a few harmless types beside tensors allowed.
"""

import argparse
import collections
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
from spp.text import visible

_WEIGHTS = ("state_dict", "model", "model_state_dict", "teacher", "module")
_WRAPPERS = ("_orig_mod.", "module.", "model.", "net.")
"""What torch.compile, DataParallel, Lightning and others put before every name."""
_HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    (pathlib.PosixPath, "pathlib._local.PosixPath"),  # as Python 3.13 calls it
    np.dtype,
    scalar,
    *map(type, map(np.dtype, "fdilq?")),
    dict,
    list,
    int,
    collections.defaultdict,
    Any,
)
_NUM_SHOWN = 3

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

    Where a file holds more than the network, such as the loss of a Lightning module, the part that has all wanted names
    is taken, and what is left out is said.

    Args:
        weights: by name.
        wanted: names of the network's weights; as soon as one is met nothing more is taken off.

    Raises:
        ValueError: one line, if several parts have all wanted names.
    """
    names = {name: name for name in weights}
    while not set(wanted) & set(names.values()):
        shared = next((word for word in _WRAPPERS if all(name.startswith(word) for name in names.values())), None)
        if not names or shared is None:
            break
        names = {old: name.removeprefix(shared) for old, name in names.items()}
    if not set(wanted) & set(names.values()) or any("._orig_mod." in name for name in names.values()):
        names = {old: name.replace("_orig_mod.", "") for old, name in names.items()}
    bare = {name: weights[old] for old, name in names.items()}
    return bare if set(wanted) & set(bare) else _network_within(bare, wanted)


def _network_within(weights: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The weights below the one prefix under which all wanted ones are; all of them where there is none."""
    longest = max(wanted, key=len, default="")
    prefixes = [name.removesuffix(longest) for name in weights if name.endswith(f".{longest}")]
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in weights for name in wanted)]
    if len(fitting) > 1:
        places = ", ".join(map(visible, fitting))
        raise ValueError(
            f"model.weights: it holds {len(fitting)} such networks, as {places}; allowed: one; save the state_dict of "
            "the one that you mean"
        )
    if not fitting:
        return weights
    left_out = [name for name in weights if not name.startswith(fitting[0])]
    shown = ", ".join(map(visible, left_out[:_NUM_SHOWN]))
    more = f" and {len(left_out) - _NUM_SHOWN} more" if len(left_out) > _NUM_SHOWN else ""
    _log.warning("the weights under %r are taken, without %s%s", visible(fitting[0]), shown, more)
    return {name.removeprefix(fitting[0]): value for name, value in weights.items() if name.startswith(fitting[0])}


def _load(file: Path) -> Any:
    if file.suffix.lower() == ".safetensors":
        return load_file(file)
    with torch.serialization.safe_globals([*_HARMLESS, *_of_lightning()]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _of_lightning() -> list[Any]:
    """What Lightning keeps hyperparameters in: containers of values, which do nothing when they are built."""
    from lightning_fabric.utilities.data import AttributeDict
    from omegaconf import DictConfig, ListConfig, base, nodes

    values = (nodes.AnyNode, nodes.BooleanNode, nodes.FloatNode, nodes.IntegerNode, nodes.StringNode, nodes.PathNode)
    names = ("lightning_fabric", "lightning.fabric")
    held = [(AttributeDict, f"{name}.utilities.data.AttributeDict") for name in names]
    return [*held, DictConfig, ListConfig, base.ContainerMetadata, base.Metadata, *values]


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
    # torch goes on to say how to run what is in the file, or says the number of a letter.
    if str(error).startswith("Weights only load failed") or isinstance(error, LookupError):
        return "it is no checkpoint"
    lines = _ESCAPES.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__}: it is empty or cut"
