"""The scores of energy; see config.py."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from spp.methods.bundles import take_gradients
from spp.methods.devices import mean_over_devices, num_devices
from spp.methods.ranking import RankingMethod
from spp.methods.search import RankingSearch, SearchRequest
from spp.methods.units.energy.config import EnergyConfig
from spp.structure.adapters.adapter import MaskPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.find import unit_weights
from spp.structure.least_squares import no_sum
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


class EnergySearch(RankingSearch):
    """Adds up sums of channels and of their squares, over all tokens."""

    per_cost = False

    def __init__(self, config: EnergyConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        adapter, model = adapter_for(masked.model), masked.model
        shared = {pair.name: pair for pair in adapter.pairs(model, per_head=False)}
        self._points = {pair.name: [adapter.mask_point(model, shared[pair.name])] for pair in self.pairs}
        for pair in self.pairs:
            if pair.kind == "qk":
                self._points[pair.name].append(adapter.key_point(model, shared[pair.name]))
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def before_forward(self) -> None:
        self._handles = [
            self._watch(pair, place, point)
            for pair in self.pairs
            for place, point in enumerate(self._points[pair.name])
        ]

    def after_backward(self) -> None:
        for handle in self._handles:
            handle.remove()
        take_gradients(self.masks)
        self.num_steps_taken += 1

    @torch.no_grad()
    def scores(self) -> dict[str, Tensor]:
        """Standardised by pair.

        Raises:
            ValueError: there was no step.
        """
        if self.num_steps_taken == 0:
            raise ValueError(
                "method.name: energy is not allowed in a search of 0 steps; allowed: 1 or more; use magnitude"
            )
        return {pair.name: _standardised(self._energy(pair)) for pair in self.pairs}

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": {place: sums.clone() for place, sums in self._sums.items()},
            "num_steps_taken": self.num_steps_taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums = {place: sums.cpu().clone() for place, sums in state["sums"].items()}
        self.num_steps_taken = int(state["num_steps_taken"])

    def _energy(self, pair: Pair) -> Tensor:
        """Before it is standardised, (size,) float64."""
        points = self._points[pair.name]
        sizes = [self._size_of_channels(self._sums[pair.name, place]) for place in range(len(points))]
        if pair.kind == "qk":
            queries, keys = (point.gather(size, pair) for point, size in zip(points, sizes, strict=True))
            return queries * keys
        second = next(part for part in unit_weights(self.masked.model, pair) if part.dim == 1)
        squares = second.parameter.detach().double().square().sum(0).cpu()
        return points[0].gather(sizes[0] * squares[: points[0].width], pair)

    def _size_of_channels(self, sums: Tensor) -> Tensor:
        total, squares, count = sums[0], sums[1], sums[2]
        mean_square = squares / count
        return mean_square - (total / count).square() if self.config.centred else mean_square

    def _watch(self, pair: Pair, place: int, point: MaskPoint) -> RemovableHandle:
        module = self.masked.model.get_submodule(point.linear)
        add = self._adder(pair.name, place, point)
        if point.side == "input":
            return module.register_forward_pre_hook(lambda module, args: add(args[0]))
        return module.register_forward_hook(lambda module, args, output: add(output))

    def _adder(self, name: str, place: int, point: MaskPoint) -> Callable[[Tensor], None]:
        def add(channels: Tensor) -> None:
            if not torch.is_grad_enabled():  # a validation
                return
            rows = channels[..., point.first : point.first + point.width].detach().flatten(0, -2)
            sums = no_sum(rows.device, 3, point.width)
            rows = rows.to(sums.dtype)
            sums[0], sums[1], sums[2] = rows.sum(0), rows.square().sum(0), len(rows)
            seen = (mean_over_devices(sums) * num_devices()).cpu().double()
            self._sums[name, place] = self._sums[name, place] + seen if (name, place) in self._sums else seen

        return add


def _standardised(scores: Tensor) -> Tensor:
    return (scores - scores.mean()) / scores.std(correction=0).clamp(min=torch.finfo(scores.dtype).tiny)


class EnergyMethod(RankingMethod[EnergyConfig]):
    """Scores by activations and the weights that they meet."""

    def build_search(self, config: EnergyConfig, masked: MaskedModel, request: SearchRequest) -> EnergySearch:
        return EnergySearch(config, masked, request.num_steps)


METHOD = EnergyMethod()
