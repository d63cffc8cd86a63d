"""What modules inside a network see and put out for a batch; the network runs no further than it must."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spp.structure.inputs import Inputs, call
from spp.structure.wrappers import uncompiled


class Tap(NamedTuple):
    """One place: the dotted name of a module, and its side, input or output."""

    module: str
    side: str


class _AllSeenError(Exception):
    """Leaves a forward pass that has passed all places."""


@torch.no_grad()
def activations(model: nn.Module, inputs: Inputs, taps: Sequence[Tap]) -> list[Tensor]:
    """What passes each place when `model` is called with `inputs`, in the order of `taps`.

    Each module is run once in a forward pass; what comes after the last place is left out.

    Raises:
        ValueError: a place was never passed.
    """
    seen: dict[Tap, Tensor] = {}

    def keep(tap: Tap, value: Tensor) -> None:
        seen[tap] = value
        if len(seen) == len(set(taps)):
            raise _AllSeenError

    handles = [_watch(model.get_submodule(tap.module), tap, keep) for tap in dict.fromkeys(taps)]
    try:
        with uncompiled(model):
            call(model, inputs)
    except _AllSeenError:
        return [seen[tap] for tap in taps]
    finally:
        for handle in handles:
            handle.remove()
    missing = next(tap.module for tap in taps if tap not in seen)
    raise ValueError(f"model: {missing} is not run in its forward pass; allowed: modules that are; check the adapter")


@contextmanager
def begun_behind(model: nn.Module, blocks: Sequence[str], hidden: Tensor) -> Iterator[None]:
    """Let forward passes begin behind some blocks: none of them is run, and the last puts out `hidden`.

    Args:
        model: whose blocks each take what the one before puts out as their first argument.
        blocks: dotted names of its first blocks, one or more, in forward order.
        hidden: what the last of them puts out for the batch that the model will be called with.
    """
    modules = [model.get_submodule(name) for name in blocks]
    for module in modules:
        module.forward = _pass_on
    modules[-1].forward = lambda *args, **kwargs: hidden
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _pass_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden


def _watch(module: nn.Module, tap: Tap, keep: Callable[[Tap, Tensor], None]) -> Any:
    if tap.side == "input":
        return module.register_forward_pre_hook(lambda module, args: keep(tap, args[0]))
    return module.register_forward_hook(lambda module, args, output: keep(tap, output))
