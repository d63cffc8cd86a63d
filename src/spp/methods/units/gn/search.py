"""The order of joint Gauss-Newton; see config.py."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.methods.devices import gather_rows
from spp.methods.iterated import IteratedSearch
from spp.methods.ranking import RankingMethod
from spp.methods.sample_gradients import SampleGradients
from spp.methods.search import SearchRequest
from spp.methods.units.gn.config import GNConfig
from spp.structure.masked import MaskedModel

MAX_STEPS = 4096
"""Steps of the removal: of a larger network several units go at a time, by one look at what is missed."""


class GNSearch(IteratedSearch):
    """Collects the gradients of samples by all masks, and removes units by what their products say."""

    def __init__(self, config: GNConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(config, masked, num_steps)
        self._watch = SampleGradients(masked)
        self._gradients: list[Tensor] = []

    def watch(self) -> None:
        self._watch.attach()

    def take_in(self) -> int:
        rows = torch.cat([self._watch.gradients[pair.name] for pair in self.pairs], dim=1)
        self._watch.detach()
        self._gradients.append(gather_rows(rows.float()).cpu())
        return len(self._gradients[-1])

    def order_of_removal(self) -> Tensor:
        return removal_order(torch.cat(self._gradients), self.costs, self.is_left)

    def take_out(self, removed: dict[str, Tensor]) -> None:
        self._gradients = []
        for name, units in removed.items():
            self.masked.set_masks({name: self.masks[name].detach() * ~units.to(self.masks[name].device)})

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "gradients": list(self._gradients)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._gradients = [rows.cpu() for rows in state["gradients"]]


def removal_order(gradients: Tensor, costs: Tensor, is_left: Tensor, max_steps: int = MAX_STEPS) -> Tensor:
    """Numbers of the units that are left, each next one with the smallest rise of d^T F d per cost.

    Args:
        gradients: J, (samples, units).
        costs: of the units, (units,).
        is_left: units to order, (units,) bool.
        max_steps: several units go at a time where there are more of them.
    """
    left = is_left.nonzero().flatten()
    jacobian, costs = gradients[:, left].double(), costs[left].double()
    num_samples = len(jacobian)
    own = jacobian.square().sum(0) / num_samples
    crossed = torch.zeros_like(own)
    at_a_time = -(-len(left) // max_steps)
    is_in = torch.ones(len(left), dtype=torch.bool)
    order: list[Tensor] = []
    while bool(is_in.any()):
        rise = torch.where(is_in, (own + 2 * crossed) / costs, torch.inf)
        chosen = rise.topk(min(at_a_time, int(is_in.sum())), largest=False).indices
        order.append(left[chosen])
        is_in[chosen] = False
        crossed += jacobian.T @ jacobian[:, chosen].sum(1) / num_samples
    return torch.cat(order)


class GNMethod(RankingMethod[GNConfig]):
    """Ranks units by the order in which they are missed least together."""

    def build_search(self, config: GNConfig, masked: MaskedModel, request: SearchRequest) -> GNSearch:
        return GNSearch(config, masked, request.num_steps)


METHOD = GNMethod()
