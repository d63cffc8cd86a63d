"""Numbers that are not finite: where they first came up, so that a stage stops there and never writes them.

A step costs two small sums on the device and no wait for it; the sums are read about once a second, at the end of an
epoch, and before anything is written.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CHECK_SECONDS = 1.0
"""How often a training looks at the sums; it then waits for the device."""


class NotFiniteError(ValueError):
    """A loss, a gradient, a weight, a mask or a metric is NaN or infinite; the message is one line."""


class FiniteSteps:
    """Finds the first training step of which a number was not finite."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._num_finite: Tensor | int = 0
        self._num_steps = 0
        self._last_look = time.monotonic()

    def note(self, value: Tensor) -> None:
        """Take in a number of the running step, a scalar; waits for no device."""
        # A sum that is not finite never becomes finite again.
        self._sum = self._sum + value.detach().float()

    def note_gradients(self, parameters: Iterator[nn.Parameter]) -> None:
        """Take in all gradients of the running step."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            self.note(torch.stack(torch._foreach_norm(gradients, ord=1)).sum())

    def end_step(self) -> None:
        """All numbers of the running step have been noted."""
        self._num_steps += 1
        self._num_finite = self._num_finite + torch.as_tensor(self._sum).isfinite()

    @property
    def is_due(self) -> bool:
        """Whether it is about time for `num_bad`."""
        return time.monotonic() - self._last_look >= CHECK_SECONDS

    def num_bad(self) -> int:
        """How many steps were done since, the first one that was not finite included; 0 where all were."""
        self._last_look = time.monotonic()
        return self._num_steps - int(self._num_finite)


def first_layer(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Name of the first layer that puts out a number that is not finite in a forward pass; None where none does."""
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            if not found and not all(bool(tensor.isfinite().all()) for tensor in tensors_of(output)):
                found.append(name)

        return look

    layers = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(look_at(name)) for name, module in layers]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors of floating point in nested containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_of(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from tensors_of(inner)


def require_finite_numbers(value: Any, where: str) -> None:
    """Refuse what JSON cannot hold.

    Args:
        value: nested containers of plain values.
        where: the dotted name of it, for the message.

    Raises:
        NotFiniteError: for the first number in it that is NaN or infinite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFiniteError(
            f"{where}: {value} is not a finite number; allowed: finite numbers; the training has diverged or the data "
            "hold such numbers: use a smaller lr, or check the data"
        )
    if isinstance(value, Mapping):
        for name, inner in value.items():
            require_finite_numbers(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            require_finite_numbers(inner, f"{where}[{place}]")
