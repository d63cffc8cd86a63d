"""The scores of Taylor and Fisher; see config.py."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import split
from spp.methods.bundles import take_gradients
from spp.methods.devices import mean_over_devices
from spp.methods.ranking import RankingMethod
from spp.methods.sample_gradients import SampleGradients
from spp.methods.search import RankingSearch, SearchRequest
from spp.methods.units.taylor.config import TaylorConfig
from spp.structure.masked import MaskedModel


class TaylorSearch(RankingSearch):
    """Averages a power of the masks' gradients over samples or batches.

    Attributes:
        total: sum of the batches' means, (num_units,) float64.
    """

    def __init__(self, config: TaylorConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.total = torch.zeros(sum(pair.size for pair in self.pairs), dtype=torch.float64)
        self._watch = SampleGradients(masked) if config.per_sample else None

    def before_forward(self) -> None:
        if self._watch is not None:
            self._watch.attach()

    def after_backward(self) -> None:
        gradients = take_gradients(self.masks)
        if self._watch is None:
            self.total += self._power(gradients)
        else:
            for pair, score in zip(self.pairs, torch.split(self.total, [p.size for p in self.pairs]), strict=True):
                own = self._power(self._watch.gradients[pair.name]).mean(0)
                score += mean_over_devices(own).cpu()
            self._watch.detach()
        self.num_steps_taken += 1

    def scores(self) -> dict[str, Tensor]:
        """Mean over the steps so far.

        Raises:
            ValueError: there was no step.
        """
        if self.num_steps_taken == 0:
            raise ValueError(
                "method.name: taylor is not allowed in a search of 0 steps; allowed: 1 or more; use magnitude"
            )
        return split(self.pairs, self.total / self.num_steps_taken)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total.clone(), "num_steps_taken": self.num_steps_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = state["total"].cpu().clone()
        self.num_steps_taken = int(state["num_steps_taken"])

    def _power(self, gradients: Tensor) -> Tensor:
        return gradients.abs() if self.config.order == 1 else gradients.square()


class TaylorMethod(RankingMethod[TaylorConfig]):
    """Scores by gradients; the loss that the search sees must be a mean over the samples of a batch."""

    def build_search(self, config: TaylorConfig, masked: MaskedModel, request: SearchRequest) -> TaylorSearch:
        return TaylorSearch(config, masked, request.num_steps)


METHOD = TaylorMethod()
