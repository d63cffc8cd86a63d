"""What a model costs: multiply-adds per sample and parameters. One counter for every method."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spp.structure.inputs import Inputs, call, num_samples
from spp.structure.wrappers import uncompiled


@dataclass(frozen=True)
class Cost:
    """Size of a model.

    Attributes:
        macs: multiply-adds of one sample; one per multiply-add of Linear, Conv and matmul, nothing else.
        params: number of parameters, trainable or not; a tied one counts once.
    """

    macs: float
    params: int


def count_cost(model: nn.Module, example: Inputs) -> Cost:
    """Count the cost of one forward pass of `model` in evaluation mode.

    The count is half of `torch.utils.flop_counter`. Attention is run by its unfused kernels, so that both of
    its products are seen as the matmuls they are.

    Args:
        model: any module; its training flags and its `requires_grad` are restored afterwards.
        example: an input of shape (batch, ...), or several by the names of the model's forward; the macs are divided by
            the batch size.
    """
    counter = _count(model, example)
    macs = counter.get_total_flops() / 2 / num_samples(example)
    return Cost(macs=macs, params=sum(p.numel() for p in model.parameters()))


def count_part(model: nn.Module, modules: Sequence[str], example: Inputs) -> Cost:
    """The cost of some modules within one forward pass of `model`, as `count_cost` counts it.

    Args:
        model: any module.
        modules: dotted names of modules of it that share no parameter and do not hold each other.
        example: as of `count_cost`.
    """
    counts = _count(model, example).get_flop_counts()
    names = [f"{type(model).__name__}.{name}" for name in modules]
    flops = sum(sum(counts[name].values()) for name in names if name in counts)
    params = sum(p.numel() for name in modules for p in model.get_submodule(name).parameters())
    return Cost(macs=flops / 2 / num_samples(example), params=params)


def _count(model: nn.Module, example: Inputs) -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    with evaluation_mode(model), _frozen(model), _unfused_attention(), uncompiled(model), torch.no_grad(), counter:
        call(model, example)
    return counter


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate a model; the training flags of its modules are restored afterwards."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    # The counter hooks what requires a gradient, and a view of a parameter does without having a gradient function.
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def _unfused_attention() -> Iterator[None]:
    # The fast path of nn.MultiheadAttention is one opaque operator, which the counter would see as zero.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
