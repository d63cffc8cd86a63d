"""Lasso on the masks: the weights stand still, and an L1 penalty leaves the units that the loss pays for.

Minimises L(m) + lambda s sum_u c_u |m_u| over the masks m by proximal gradient steps: m <- soft(m - lr v, lr lambda),
with v the running mean of dL/dm / (s c_u). c_u is the MACs of a unit over those of the mean attention unit (1 with
`priced=false`), and s the mean |dL/dm| / c_u over attention units of the dense network, measured first: so lambda means
the same for every network, and a unit's penalty is lambda times what it costs. Dividing the gradient by s c_u only
chooses the metric of the step, not the minimiser.

One search for each budget (pipeline=lasso, the default) finds the lambda whose
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
from typing import Any, ClassVar

from spp.config import require
from spp.methods.ranking import RankingConfig

PATH_FIELDS = ("lam", "direction", "lam_max", "lam_ratio")
"""What only one search for all budgets uses."""
BUDGET_FIELDS = ("num_lambdas",)
"""What only a search for one budget uses."""


@dataclass(frozen=True, kw_only=True)
class LassoConfig(RankingConfig):
    """Settings of the penalty, of its lambdas and of the selection."""

    kinds: ClassVar[tuple[str, ...]] = ("budget ranking", "ranking")
    trains_weights: ClassVar[bool] = False

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

    def search_settings(self, kind: str) -> dict[str, Any]:
        unused = PATH_FIELDS if kind == "budget ranking" else BUDGET_FIELDS
        other_pipeline = "lasso_path" if kind == "budget ranking" else "lasso"
        for name in unused:
            value, default = getattr(self, name), getattr(type(self), name)
            allowed = f"{'null' if default is None else default}, as this pipeline does not use it"
            remedy = f"leave it out, or use pipeline={other_pipeline}"
            require(value == default, f"method.{name}", value, allowed, remedy)
        return {name: value for name, value in super().search_settings(kind).items() if name not in unused}


CONFIG = LassoConfig
