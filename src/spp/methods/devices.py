"""What one process of several must ask the others."""

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
