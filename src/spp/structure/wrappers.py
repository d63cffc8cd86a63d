"""What torch wraps around networks: torch.compile and DataParallel."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network that was given to torch.compile or DataParallel; any other model is itself."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run the parts of a model that torch.compile has made as they were written: compiled code does not see hooks."""
    if not any(hasattr(module, "_orig_mod") for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `torch.compile\\(module\\)` when there are global hooks")
        yield
