"""Whether the numbers of a network are finite."""

import torch
from torch import Tensor, nn


def first_not_finite(module: nn.Module) -> str | None:
    """Name of the first parameter that holds NaN or infinity, or buffer that holds NaN; None where there is none.

    A buffer may hold infinity on purpose, as masks of attention do. Waits for the device once.
    """
    tensors: list[tuple[str, Tensor, bool]] = [(name, weight, True) for name, weight in module.named_parameters()]
    tensors += [(name, buffer, False) for name, buffer in module.named_buffers()]
    tensors = [entry for entry in tensors if entry[1].is_floating_point() and entry[1].numel()]
    if not tensors:
        return None
    is_good = torch.stack([_is_good(tensor.detach(), is_weight) for _, tensor, is_weight in tensors]).tolist()
    return next((name for (name, _, _), good in zip(tensors, is_good, strict=True) if not good), None)


def _is_good(tensor: Tensor, is_weight: bool) -> Tensor:
    return tensor.isfinite().all() if is_weight else ~tensor.isnan().any()
