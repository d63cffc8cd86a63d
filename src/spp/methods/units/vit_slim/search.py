"""Which of its searches ViT-Slim is asked for; see config.py for what is mended and what is ours."""

from spp.methods.ranking import RankingMethod
from spp.methods.search import SearchRequest
from spp.methods.units.vit_slim.config import ViTSlimConfig
from spp.methods.units.vit_slim.gates import ViTSlimSearch
from spp.methods.units.vit_slim.tokens import ViTSlimTokenSearch
from spp.structure.masked import MaskedModel


class ViTSlimMethod(RankingMethod[ViTSlimConfig]):
    """Scores by gates that an L1 penalty has made small."""

    def build_search(self, config: ViTSlimConfig, masked: MaskedModel, request: SearchRequest) -> ViTSlimSearch:
        """The search, with gates on tokens where `config.tokens` asks for some.

        Raises:
            ValueError: `tied` where query-key and value channels differ in number; `tokens` where none can leave.
        """
        build = ViTSlimSearch if config.tokens == 1 else ViTSlimTokenSearch
        return build(config, masked, request.num_steps)


METHOD = ViTSlimMethod()
