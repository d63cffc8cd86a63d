"""Hidden states: what the blocks of a network hand on, as it runs. Pruning leaves their width as it is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from spp.structure.adapters.adapter import HiddenPoint
from spp.structure.adapters.registry import adapter_for


def hidden_points(model: nn.Module) -> list[HiddenPoint]:
    """Where the hidden states of a network are, in forward order; also of one that is masked, compact or held.

    Raises:
        ValueError: the model has no adapter, or one that does not know them.
    """
    return adapter_for(model).hidden_points(model)


@contextmanager
def watched(model: nn.Module, points: Sequence[HiddenPoint]) -> Iterator[list[Tensor]]:
    """Keep the states at `points` of the one forward pass that is made inside; they are in the list then, in order.

    Args:
        model: a network that is not compiled.
        points: of that network, in forward order.
    """
    states: list[Tensor] = []

    def keep_input(module: nn.Module, args: tuple[Any, ...]) -> None:
        states.append(args[0])

    def keep_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = []
    try:
        for point in points:
            module = model.get_submodule(point.module)
            is_input = point.side == "input"
            handles.append(
                module.register_forward_pre_hook(keep_input) if is_input else module.register_forward_hook(keep_output)
            )
        yield states
    finally:
        for handle in handles:
            handle.remove()
