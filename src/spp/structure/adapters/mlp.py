"""MLPs: a hidden channel is a row of each first map and a column of the second; gated ones have two first maps."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spp.structure import modeling_spp, narrow
from spp.structure.pair import Pair


@dataclass(frozen=True)
class MlpParts:
    """Dotted names, within the module of an MLP, of its Linears.

    Attributes:
        firsts: those that put out the hidden channels; a gated MLP has two, whose outputs are multiplied, or one of
            twice as many rows: first those of one map, then those of the other.
        second: the one that takes them in.
    """

    firsts: tuple[str, ...]
    second: str


def parts_of(mlp: nn.Module) -> MlpParts:
    """The Linears of an MLP of a library that modeling_spp.py knows."""
    return MlpParts(*modeling_spp.mlp_parts(mlp))


def mlp_pair(name: str, module: str, mlp: nn.Module, parts: MlpParts, num_tokens: int) -> Pair:
    """The pair of an MLP, at d_in + d_out parameters for a channel of a plain one (vision-methods.md 0.2).

    Args:
        name: of the pair.
        module: dotted name of the MLP.
        mlp: the MLP.
        parts: its Linears.
        num_tokens: tokens of a sample that it sees.
    """
    second: Any = mlp.get_submodule(parts.second)
    weights, biases = second.out_features, 0
    for first, index in _firsts(mlp, parts):
        weights += index.shape[1] * first.in_features
        biases += index.shape[1] * (first.bias is not None)
    return Pair(
        name=name,
        kind="mlp",
        size=second.in_features,
        params_per_unit=weights + biases,
        macs_per_unit=float(weights * num_tokens),
        module=module,
    )


def shrink_mlp(mlp: nn.Module, parts: MlpParts, units: Tensor) -> None:
    """Keep the hidden channels of these ascending numbers, in place."""
    second: Any = mlp.get_submodule(parts.second)
    for first, index in _firsts(mlp, parts):
        narrow.keep_rows(first, index[units].T.flatten())
    narrow.keep_columns(second, units)


def mlp_units(mlp: nn.Module, parts: MlpParts) -> list[tuple[str, int, Tensor]]:
    """Where the units lie: names of parameters, dimension, and for every unit the numbers of its slices."""
    second: Any = mlp.get_submodule(parts.second)
    found = [
        (f"{name}.{kind}", 0, index)
        for name, (_, index) in zip(parts.firsts, _firsts(mlp, parts), strict=True)
        for kind in ("weight", "bias")
    ]
    return [*found, (f"{parts.second}.weight", 1, torch.arange(second.in_features)[:, None])]


def _firsts(mlp: nn.Module, parts: MlpParts) -> list[tuple[Any, Tensor]]:
    """The first maps, and for every hidden channel the numbers of its rows, (channels, rows)."""
    second: Any = mlp.get_submodule(parts.second)
    firsts: list[Any] = [mlp.get_submodule(name) for name in parts.firsts]
    num_rows = modeling_spp.rows_per_unit(mlp)
    units = torch.arange(second.in_features)[:, None]
    return [(first, units + torch.arange(num_rows) * second.in_features) for first in firsts]
