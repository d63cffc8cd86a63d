"""Which of its searches Lasso is asked for; see config.py for the problem that they solve."""

from spp.methods.ranking import RankingMethod
from spp.methods.search import SearchRequest
from spp.methods.units.lasso.budget import LassoBudgetSearch
from spp.methods.units.lasso.config import LassoConfig
from spp.methods.units.lasso.path import LambdaSearch, PathSearch
from spp.methods.units.lasso.proximal import LassoSearch
from spp.structure.masked import MaskedModel


class LassoMethod(RankingMethod[LassoConfig]):
    """One search for each budget, or one along a path."""

    def build_search(self, config: LassoConfig, masked: MaskedModel, request: SearchRequest) -> LassoSearch:
        """The search for the lambda of a budget; without one along the path, or at one lambda if `config.lam` is set.

        Raises:
            ValueError: the budget cannot be reached.
        """
        if request.budget is not None:
            return LassoBudgetSearch(config, masked, request.num_steps, request.budget)
        return (PathSearch if config.lam is None else LambdaSearch)(config, masked, request.num_steps)


METHOD = LassoMethod()
