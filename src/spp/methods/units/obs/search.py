"""The order of OBS-Fisher; see config.py."""

from spp.methods.elimination.search import EliminationSearch
from spp.methods.ranking import RankingMethod
from spp.methods.search import SearchRequest
from spp.methods.units.obs.config import OBSConfig
from spp.structure.masked import MaskedModel


class OBSMethod(RankingMethod[OBSConfig]):
    """Ranks units by the order of their elimination."""

    def build_search(self, config: OBSConfig, masked: MaskedModel, request: SearchRequest) -> EliminationSearch:
        return EliminationSearch(config, masked, request.num_steps)


METHOD = OBSMethod()
