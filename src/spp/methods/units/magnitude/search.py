"""The score of magnitude; see config.py."""

import torch
from torch import Tensor

from spp.methods.ranking import RankingMethod
from spp.methods.search import SearchRequest
from spp.methods.static import StaticSearch
from spp.methods.units.magnitude.config import MagnitudeConfig
from spp.structure.find import unit_weights
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


class MagnitudeSearch(StaticSearch):
    """Reads the weights as they are when the scores are asked for."""

    def __init__(self, config: MagnitudeConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.per_cost = config.norm == "l2"

    @torch.no_grad()
    def scores(self) -> dict[str, Tensor]:
        return {pair.name: self._score(pair) for pair in self.pairs}

    def _score(self, pair: Pair) -> Tensor:
        squares, num_weights = torch.zeros(pair.size, dtype=torch.float64), 0
        for part in unit_weights(self.masked.model, pair):
            if part.parameter.ndim < 2:
                continue
            by_slice = part.parameter.detach().double().square().sum(1 - part.dim).cpu()
            squares += by_slice[part.index].sum(1)
            num_weights += part.index.shape[1] * part.parameter.shape[1 - part.dim]
        return squares if self.config.norm == "l2" else (squares / num_weights).sqrt()


class MagnitudeMethod(RankingMethod[MagnitudeConfig]):
    """Scores by the weights; a search of 0 steps is enough."""

    def build_search(self, config: MagnitudeConfig, masked: MaskedModel, request: SearchRequest) -> MagnitudeSearch:
        return MagnitudeSearch(config, masked, request.num_steps)


METHOD = MagnitudeMethod()
