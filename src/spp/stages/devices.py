"""Where a stage computes, for what needs no Trainer: importing Lightning takes as long as importing torch."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def find_device(accelerator: str) -> torch.device:
    """The device of a process alone, as Lightning's Trainer chooses it: of several GPUs the first that is visible.

    Args:
        accelerator: auto, cpu or gpu.

    Raises:
        RuntimeError: one line, if there is no GPU and gpu is asked for.
    """
    if accelerator != "cpu":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if torch.backends.mps.is_available():
            return torch.device("mps")
    if accelerator == "gpu":
        raise RuntimeError("accelerator: 'gpu' is not allowed; allowed: auto, cpu, as there is no GPU; use auto")
    return torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with all tensors in its lists, tuples and dictionaries on a device; the others stay as they are."""
    return tree_map(lambda leaf: leaf.to(device, non_blocking=True) if isinstance(leaf, Tensor) else leaf, batch)


def seed_everything(seed: int) -> None:
    """Seed every global generator that training draws from: those of Python, NumPy and torch, of all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
