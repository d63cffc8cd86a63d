"""A member with single weights pruned, on disk: per decoder layer a file of masks as bits, and of moved weights."""

from collections.abc import Mapping
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


@torch.no_grad()
def apply_layer(linears: Mapping[str, nn.Linear], file: Path) -> int:
    """Make the linears of a dense layer those of the member, in place; returns how many weights it keeps."""
    tensors, num_kept = load_file(file), 0
    for name, linear in linears.items():
        weight = linear.weight
        if f"{name}.weight" in tensors:
            weight.copy_(tensors[f"{name}.weight"])
        packed = tensors[f"{name}.mask"].numpy()
        mask = torch.from_numpy(np.unpackbits(packed, count=weight.numel()).astype(bool)).view(weight.shape)
        weight.mul_(mask.to(weight.device))
        num_kept += int(mask.sum())
    return num_kept
