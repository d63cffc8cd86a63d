"""What WDPruning searches with: one exit, or several among which it chooses."""

from spp.methods.method import Method
from spp.methods.search import SearchRequest
from spp.methods.units.wdpruning.config import WDPruningConfig
from spp.methods.units.wdpruning.exits import WDPruningExitSearch
from spp.methods.units.wdpruning.thresholds import WDPruningSearch
from spp.structure.masked import MaskedModel


class WDPruningMethod(Method[WDPruningConfig]):
    """One search for each budget."""

    def build_search(self, config: WDPruningConfig, masked: MaskedModel, request: SearchRequest) -> WDPruningSearch:
        """The search for one budget.

        Raises:
            ValueError: the budget cannot be reached, heads are asked of pairs that share their units, or the network
                has no such depth.
        """
        build = WDPruningExitSearch if config.exits else WDPruningSearch
        return build(config, masked, request.num_steps, request.required_budget)


METHOD = WDPruningMethod()
