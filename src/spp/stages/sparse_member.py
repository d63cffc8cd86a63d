"""A member with single weights pruned, on disk: per decoder layer a file of masks as bits, and of moved weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spp.sparsity.prune_layer import LinearResult


def layer_file(folder: Path, index: int) -> Path:
    """The artifact of a decoder layer."""
    return folder / f"layer_{index:03}.safetensors"


def save_layer(file: Path, results: Mapping[str, LinearResult], dtype: torch.dtype) -> None:
    """Write what became of the linears of a layer.

    Args:
        file: target.
        results: by name of the linear within its layer.
        dtype: of moved weights: that in which the network computes.
    """
    tensors: dict[str, Tensor] = {}
    for name, result in results.items():
        tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(result.mask.cpu().numpy()))
        if result.weight is not None:
            tensors[f"{name}.weight"] = result.weight.to(dtype).cpu().contiguous()
        if result.permutation is not None:
            tensors[f"{name}.permutation"] = result.permutation.int().cpu().contiguous()
    save_file(tensors, file)


@dataclass(frozen=True)
class SparseLinear:
    """What a member has in the place of a linear.

    Attributes:
        mask: (out, in) bool, True where the weight stays.
        weight: (out, in), moved; None where no weight was.
        permutation: (in,) the order of the inputs in which N:M holds; None: it does as they are.
    """

    mask: Tensor
    weight: Tensor | None
    permutation: Tensor | None

    def applied_to(self, dense: Tensor) -> Tensor:
        """The member's weights, where `dense` (out, in) are those that it was made of."""
        moved = dense if self.weight is None else self.weight.to(dense.device, dense.dtype)
        return moved * self.mask.to(dense.device)


def read_layer(file: Path, shapes: Mapping[str, torch.Size]) -> dict[str, SparseLinear]:
    """What `save_layer` wrote; `shapes` are those of the weights by name of the linear."""
    tensors, found = load_file(file), {}
    for name, shape in shapes.items():
        bits = np.unpackbits(tensors[f"{name}.mask"].numpy(), count=shape.numel()).astype(bool)
        order = tensors.get(f"{name}.permutation")
        found[name] = SparseLinear(
            torch.from_numpy(bits).view(shape), tensors.get(f"{name}.weight"), None if order is None else order.long()
        )
    return found


@torch.no_grad()
def apply_layer(linears: Mapping[str, nn.Linear], file: Path) -> int:
    """Make the linears of a dense layer those of the member, in place; returns how many weights it keeps."""
    found = read_layer(file, {name: linear.weight.shape for name, linear in linears.items()})
    for name, linear in linears.items():
        linear.weight.copy_(found[name].applied_to(linear.weight))
    return sum(int(sparse.mask.sum()) for sparse in found.values())
