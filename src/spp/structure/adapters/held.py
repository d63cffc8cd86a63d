"""A network that another module holds, such as `.backbone`: the adapter of the inner one, under the outer names."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spp.structure.adapters.adapter import (
    Adapter,
    AttentionPoint,
    HiddenPoint,
    LogitsPoint,
    MaskPoint,
    StreamPoint,
    TokenPoint,
    UnitWeights,
)
from spp.structure.inputs import Inputs
from spp.structure.pair import Pair


class HeldAdapter(Adapter):
    """Serves a module through the network at `name` inside it.

    The module takes what that network takes, under names of its own.

    Args:
        name: dotted name of the network in the module.
        inner: the network's adapter.
    """

    model_classes = ()

    def __init__(self, name: str, inner: Adapter) -> None:
        self.name, self.inner = name, inner

    def example_inputs(self, model: nn.Module) -> dict[str, Tensor]:
        inputs = self.inner.example_inputs(self._network(model))
        parameters = inspect.signature(model.forward).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        # A module that hands on whatever it gets has no names of its own.
        return inputs if len(names) < len(inputs) else dict(zip(names, inputs.values(), strict=False))

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        found = self.inner.pairs(self._network(model), per_head=per_head)
        return [replace(pair, name=self._outer(pair.name), module=self._outer(pair.module)) for pair in found]

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        point = self.inner.mask_point(self._network(model), self._inner_pair(pair))
        return replace(point, linear=self._outer(point.linear))

    def first_mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        point = self.inner.first_mask_point(self._network(model), self._inner_pair(pair))
        return replace(point, linear=self._outer(point.linear))

    def key_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        point = self.inner.key_point(self._network(model), self._inner_pair(pair))
        return replace(point, linear=self._outer(point.linear))

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        self.inner.shrink(self._network(model), self._inner(module), kept)

    def unit_weights(self, model: nn.Module, pair: Pair) -> list[UnitWeights]:
        parts = self.inner.unit_weights(self._network(model), self._inner_pair(pair))
        return [replace(part, name=self._outer(part.name)) for part in parts]

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        self.inner.set_drop_path(self._network(model), rate)

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        sizes = self.inner.module_sizes(self._network(model))
        return {self._outer(name): entry for name, entry in sizes.items()}

    def token_points(self, model: nn.Module) -> list[TokenPoint]:
        return [
            replace(point, block=self._outer(point.block), norms=tuple(map(self._outer, point.norms)))
            for point in self.inner.token_points(self._network(model))
        ]

    def drop_tokens(self, model: nn.Module, block: str, kept: Tensor) -> None:
        self.inner.drop_tokens(self._network(model), self._inner(block), kept)

    def real_tokens(self, model: nn.Module, module: str, inputs: Inputs) -> Tensor | None:
        return self.inner.real_tokens(self._network(model), self._inner(module), inputs)

    def stream_point(self, model: nn.Module, pair: Pair) -> StreamPoint | None:
        point = self.inner.stream_point(self._network(model), self._inner_pair(pair))
        return None if point is None else replace(point, module=self._outer(point.module))

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        point = self.inner.logits_point(self._network(model), self._inner_pair(pair))
        return None if point is None else self._outer_logits(point)

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        points = self.inner.hidden_points(self._network(model))
        return [replace(point, module=self._outer(point.module)) for point in points]

    def attention_points(self, model: nn.Module) -> list[AttentionPoint]:
        points = self.inner.attention_points(self._network(model))
        return [replace(point, logits=self._outer_logits(point.logits)) for point in points]

    def _outer_logits(self, point: LogitsPoint) -> LogitsPoint:
        return replace(point, query=self._outer(point.query), key=self._outer(point.key))

    def _network(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(self.name)

    def _inner_pair(self, pair: Pair) -> Pair:
        return replace(pair, name=self._inner(pair.name), module=self._inner(pair.module))

    def _outer(self, name: str) -> str:
        return f"{self.name}.{name}"

    def _inner(self, name: str) -> str:
        return name.removeprefix(f"{self.name}.")
