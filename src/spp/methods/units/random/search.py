"""The draw of random; see config.py."""

import hashlib

import torch
from torch import Tensor

from spp.dynamics.budget import split
from spp.methods.ranking import RankingMethod
from spp.methods.search import SearchRequest
from spp.methods.static import StaticSearch
from spp.methods.units.random.config import RandomConfig
from spp.structure.masked import MaskedModel


class RandomSearch(StaticSearch):
    """Draws from a generator of its own, so that nothing else that draws can change it."""

    per_cost = False

    def __init__(self, config: RandomConfig, masked: MaskedModel, num_steps: int, seed: int) -> None:
        super().__init__(masked, num_steps)
        # Hashed, so that (0, 1) and (1, 0) are other draws.
        digest = hashlib.sha256(f"{config.seed}/{seed}".encode()).digest()
        self._seed = int.from_bytes(digest[:8], "big") >> 1

    def scores(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self._seed)
        num_units = sum(pair.size for pair in self.pairs)
        return split(self.pairs, torch.rand(num_units, generator=generator, dtype=torch.float64))


class RandomMethod(RankingMethod[RandomConfig]):
    """Scores by lot; a search of 0 steps is enough."""

    def build_search(self, config: RandomConfig, masked: MaskedModel, request: SearchRequest) -> RandomSearch:
        return RandomSearch(config, masked, request.num_steps, request.seed)


METHOD = RandomMethod()
