"""What one process of several must ask the others."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def num_devices() -> int:
    """Processes that train together, 1 where there is but one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_devices(values: Tensor) -> Tensor:
    """The mean of `values` over all processes; every one has to call it."""
    if num_devices() == 1:
        return values
    dist.all_reduce(values)
    return values / num_devices()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, one after the other; every one has to call it with as many."""
    if num_devices() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(num_devices())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Make tensors on all processes those of the first, in place; every one has to call it."""
    if num_devices() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
