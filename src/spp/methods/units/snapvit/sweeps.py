"""SnapViT's own repair: SparseGPT's sweep over the columns of proj and fc2, as two of its scripts do it.

As released (commit 2ed5f79): block after block, H is the Gram matrix of a map's inputs with .01 of its mean diagonal
added, and with U the upper factor of H^-1 = U^T U a removed column w_j leaves w_j / U_jj U_jk to every column k > j.
Biases stay.

* `snapvit_prune` (prune.py): from left to right over the columns as they stand. What a removed column leaves goes to
  those on its right alone, and what of it falls on columns that are removed later goes on from there. Inputs are those
  behind blocks that are cut and repaired already; both maps of a block see the block itself dense.
* `snapvit_inference` (inference.py): removed columns first, so that those that stay get all of it: the least squares
  of the map's output. Inputs are those of the dense network.

Mended: the column of an input that is 0 for all images stays as it is; the released code sets it to 0, and counts 1 for
it in the mean diagonal.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from spp.sparsity.curvature import Curvature
from spp.sparsity.sweep import update_in_sweep
from spp.structure.activations import Tap, activations
from spp.structure.compact import compact
from spp.structure.cost import evaluation_mode
from spp.structure.find import unit_weights
from spp.structure.inputs import Inputs, moved
from spp.structure.least_squares import no_sum
from spp.structure.pair import Pair

DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal."""


def swept(
    model: nn.Module, pairs: Sequence[Pair], masks: Mapping[str, Tensor], batches: Sequence[Inputs], kind: str
) -> nn.Module:
    """The compact model of `masks` whose second maps make up for what they have lost.

    Args:
        model: the dense network, of timm; left unchanged.
        pairs: its pairs, in forward order.
        masks: the units that stay, bool by pair name.
        batches: what the network is called with, without labels; gone through once for each block.
        kind: snapvit_prune or snapvit_inference.

    Raises:
        ValueError: another network.
    """
    check_blocks(model, kind)
    device = next(model.parameters()).device
    repaired = copy.deepcopy(model)
    with torch.no_grad(), evaluation_mode(repaired), evaluation_mode(model):
        for _, block in groupby(pairs, key=lambda pair: pair.module.rpartition(".")[0]):
            of_block = list(block)
            seen = repaired if kind == "snapvit_prune" else model
            removed = {name: columns for name, columns in _removed_columns(repaired, of_block, masks) if columns.any()}
            for name, gram in _grams(seen, list(removed), batches, device).items():
                second: Any = repaired.get_submodule(name)
                second.weight.copy_(_sweep(second.weight, gram, removed[name], kind, name))
            for pair in of_block:
                for part in unit_weights(repaired, pair):
                    gone = part.index[~masks[pair.name]].flatten().to(device)
                    part.parameter.index_fill_(part.dim, gone, 0.0)
    return compact(repaired, masks)


def check_blocks(model: nn.Module, kind: str) -> None:
    """Refuse a network whose blocks are not known to hold their attention and their MLP side by side.

    Raises:
        ValueError: one line.
    """
    if not hasattr(model, "forward_features"):
        raise ValueError(
            f"repair.kind: {kind} is not allowed with a {type(model).__name__}; allowed: networks of timm; use "
            "repair=full"
        )


def _removed_columns(model: nn.Module, pairs: Sequence[Pair], masks: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The second maps of pairs, and which of their columns leave, (in,) bool."""
    found = []
    for pair in pairs:
        for part in unit_weights(model, pair):
            if part.dim == 1:
                removed = torch.zeros(part.parameter.shape[1], dtype=torch.bool, device=part.parameter.device)
                removed[part.index[~masks[pair.name]].flatten()] = True
                found.append((part.name.removesuffix(".weight"), removed))
    return found


def _grams(model: nn.Module, maps: list[str], batches: Sequence[Inputs], device: torch.device) -> dict[str, Tensor]:
    """X^T X over all tokens by name of the map whose inputs X are, (in, in)."""
    sums: dict[str, Tensor] = {}
    for batch in batches if maps else ():
        seen = activations(model, moved(batch, device), [Tap(name, "input") for name in maps])
        for name, inputs in zip(maps, seen, strict=True):
            rows = inputs.flatten(0, -2)
            sums.setdefault(name, no_sum(device, rows.shape[1], rows.shape[1]))
            sums[name] += rows.T @ rows
    return sums


def _sweep(weight: Tensor, gram: Tensor, removed: Tensor, kind: str, name: str) -> Tensor:
    columns = torch.arange(len(removed), device=removed.device)
    order = columns if kind == "snapvit_prune" else removed.argsort(descending=True, stable=True)
    factor = Curvature(gram[order][:, order], DAMPING, name).inverse_factor
    kept = (~removed[order]).expand_as(weight)
    updated = update_in_sweep(weight[:, order].to(factor.dtype), kept, factor)
    return updated[:, order.argsort()].to(weight.dtype)
