"""The order in which units are eliminated; the formulas are in spp/methods/units/obs/config.py."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spp.methods.devices import copy_from_first
from spp.methods.elimination.config import EliminationConfig
from spp.methods.elimination.greedy import eliminate_plain, eliminate_refitted
from spp.methods.elimination.statistics import PairStatistics
from spp.methods.iterated import IteratedSearch
from spp.structure.find import unit_weights
from spp.structure.inputs import Inputs, num_samples
from spp.structure.masked import MaskedModel
from spp.structure.repair import RIDGE, repair_in_place


class EliminationSearch(IteratedSearch):
    """Adds up the statistics of the pairs, and eliminates units; between two cuts the network is repaired.

    Args:
        config: the settings.
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.
        start_share: MACs, as a share of the dense network's, that are left when it begins; below 1 the units that are
            gone are told by `start_without`, and the network is repaired without them.
    """

    def __init__(
        self, config: EliminationConfig, masked: MaskedModel, num_steps: int, *, start_share: float = 1.0
    ) -> None:
        super().__init__(config, masked, num_steps, start_share=start_share)
        is_repaired = config.num_cuts > 1 or start_share < 1
        self._num_repair_samples = config.num_repair_samples if is_repaired else 0
        # In a tuple, so that it moves and is saved with nobody.
        self._dense: tuple[nn.Module, ...] = (copy.deepcopy(masked.model),) if is_repaired else ()
        self._statistics = PairStatistics(masked)
        self._inputs: list[Inputs] = []

    def watch(self) -> None:
        self._statistics.attach()
        self.keep_inputs()

    def keep_inputs(self) -> None:
        """Keep what the next forward pass is called with, if a repair needs more."""
        if self._num_repair_samples > sum(map(num_samples, self._inputs)):
            self._handle = self.masked.model.register_forward_pre_hook(self._keep, with_kwargs=True)

    def take_in(self) -> int:
        return self._statistics.take_in()

    def order_of_removal(self) -> Tensor:
        numbers, keys, first = [], [], 0
        for pair in self.pairs:
            left = self.is_left[first : first + pair.size].nonzero().flatten()
            if len(left):
                order, errors = self._eliminate(pair.name, left)
                numbers.append(first + left[order])
                keys.append(errors.cummax(0).values / pair.macs_per_unit)
            first += pair.size
        # Stable, so that units of one pair with one running maximum stay in their order.
        return torch.cat(numbers)[torch.cat(keys).argsort(stable=True)]

    def take_out(self, removed: dict[str, Tensor]) -> None:
        batches, self._inputs = self._inputs, []
        self._statistics.forget()
        if not self.is_left.any():
            return
        dense, model = self._dense[0], self.masked.model
        with torch.no_grad():
            for pair in self.pairs:
                for part in unit_weights(model, pair):
                    gone = part.index[removed[pair.name]].flatten().to(part.parameter.device)
                    part.parameter.index_fill_(part.dim, gone, 0.0)
        repair_in_place(model, dense.to(next(model.parameters()).device), batches)
        copy_from_first(model.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "statistics": self._statistics.state_dict(), "inputs": list(self._inputs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._statistics.load_state_dict(state["statistics"])
        self._inputs = list(state["inputs"])

    def _eliminate(self, name: str, left: Tensor) -> tuple[Tensor, Tensor]:
        """Places in `left` in the order of removal, and the marginal errors."""
        if name not in self._statistics.maps:
            return eliminate_plain(self._statistics.of_logits(name)[left][:, left])
        second = self._statistics.maps[name]
        weight: Any = self.masked.model.get_submodule(second.module).weight
        gram, fisher = self._statistics.of_map(name)
        double = weight.detach().to(fisher.dtype)
        return eliminate_refitted(gram, double.T @ fisher @ double, second.groups[left], RIDGE)

    def _keep(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._handle.remove()
        self._inputs.append({name: value.detach().cpu() for name, value in kwargs.items()} or args[0].detach().cpu())
