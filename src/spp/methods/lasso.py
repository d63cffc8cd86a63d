"""Lasso on the masks: the weights stand still, and an L1 penalty leaves the units that the loss pays for.

Minimises L(m) + lambda s sum_u c_u |m_u| over the masks m by proximal gradient steps: m <- soft(m - lr v, lr lambda),
with v the running mean of dL/dm / (s c_u). c_u is the MACs of a unit over those of the mean attention unit (1 with
`priced=false`), and s the mean |dL/dm| / c_u over attention units of the dense network, measured first: so lambda means
the same for every network, and a unit's penalty is lambda times what it costs. Dividing the gradient by s c_u only
chooses the metric of the step, not the minimiser.

One search for each budget (pipeline=lasso, the default; pipelines/one_lambda_per_budget.py) finds the lambda whose
support costs what the budget pays for, achieved and in the budget's own kind: `num_lambdas` lambdas share the steps of
the search, each starting from masks of the one before, and bisection over log lambda chooses them. Where the masks have
not settled a lambda is tried on; in a short search fewer are. The masks in the end are those whose support came nearest
to the budget; the ranking (the support by |m|, then the others by how near they are to it) cuts or fills it to within a
unit. The summary of the search lists `lambdas`.

One search for all budgets (pipeline=lasso_path) gives the path: lambda changes by a constant factor from step to step,
each step starting from the masks of the last. direction=up starts with the dense network and a small lambda and ranks
the units by the lambda at which they leave for good; direction=down starts with all masks at 0 and a large lambda and
ranks the units by the lambda at which they enter for good, which is the textbook's path. There the search begins with
a network that computes nothing. With `lam` set that search is for this one lambda, and ranks as above.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spp.config import require
from spp.methods._ranking_config import RankingConfig, select_member

if TYPE_CHECKING:
    from spp.dynamics.budget import Budget
    from spp.methods._lasso import LassoSearch
    from spp.structure.masked import MaskedModel

KINDS = ("budget ranking", "ranking")
"""What a search may end in; see spp.methods.registry."""

PATH_FIELDS = ("lam", "direction", "lam_max", "lam_ratio")
BUDGET_FIELDS = ("num_lambdas",)


@dataclass(frozen=True, kw_only=True)
class LassoConfig(RankingConfig):
    """Settings of the penalty, of its lambdas and of the selection."""

    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "lasso"
    lam: float | None = None
    """Path only: one lambda for the whole search; null: a path through all of them."""
    direction: str = "down"
    """Path only: down (lambda falls, units enter) or up (lambda rises, units leave)."""
    lam_max: float | None = None
    """Path only: its largest lambda; null: down, the largest scaled gradient with all masks at 0; up, 10."""
    lam_ratio: float = 1e-3
    """Path only: smallest lambda over the largest."""
    num_lambdas: int = 5
    """One search for each budget only: lambdas that share its steps."""
    lr: float | None = None
    """Step size of the masks, in units of 1 / (s c_u); null: 0.03, or in one search for each budget up to 0.1, if a
    lambda has few steps."""
    momentum: float = 0.9
    """Momentum of the running mean of the gradient."""
    priced: bool = True
    """A unit's penalty is lambda times its MACs; false: lambda for every unit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam", "lam_max", "lr"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a positive number, or null", "use null")
        require(self.num_lambdas > 0, "num_lambdas", self.num_lambdas, "1 or more", "use 5")
        require(self.direction in ("down", "up"), "direction", self.direction, "down, up", "use down")
        require(0 < self.lam_ratio < 1, "lam_ratio", self.lam_ratio, "(0, 1)", "use 1e-3")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "[0, 1)", "use 0.9")

    def search(self) -> dict[str, Any]:
        """The settings of one search for all budgets.

        Raises:
            ValueError: if a setting is set that it does not use.
        """
        return self._settings_without(BUDGET_FIELDS, "lasso")

    def budget_search(self) -> dict[str, Any]:
        """The settings of a search for one budget.

        Raises:
            ValueError: if a setting is set that it does not use.
        """
        return self._settings_without(PATH_FIELDS, "lasso_path")

    def _settings_without(self, names: tuple[str, ...], pipeline: str) -> dict[str, Any]:
        for name in names:
            value, default = getattr(self, name), getattr(type(self), name)
            allowed = f"{'null' if default is None else default}, as this pipeline does not use it"
            require(value == default, f"method.{name}", value, allowed, f"leave it out, or use pipeline={pipeline}")
        return {name: value for name, value in super().search().items() if name not in names}


METHOD_CONFIG = LassoConfig
select = select_member


def build_search(
    config: LassoConfig, masked: "MaskedModel", num_steps: int, budget: "Budget | None" = None
) -> "LassoSearch":
    """The search: for the lambda of a budget; without one of the path, or of one lambda where `config.lam` is set.

    Raises:
        ValueError: the budget cannot be reached.
    """
    from spp.methods._lasso import LambdaSearch, PathSearch
    from spp.methods._lasso_budget import LassoBudgetSearch

    if budget is not None:
        return LassoBudgetSearch(config, masked, num_steps, budget)
    return (PathSearch if config.lam is None else LambdaSearch)(config, masked, num_steps)
