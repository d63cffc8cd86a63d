"""Lasso on the masks: the weights stand still, and an L1 penalty leaves the units that the loss pays for.

Minimises L(m) + lambda s sum_u c_u |m_u| over the masks m by proximal gradient steps: m <- soft(m - lr v, lr lambda),
with v the running mean of dL/dm / (s c_u). c_u is the MACs of a unit over those of the mean attention unit (1 with
`priced=false`), and s the mean |dL/dm| / c_u over attention units of the dense network, measured first: so lambda means
the same for every network, and a unit's penalty is lambda times what it costs. Dividing the gradient by s c_u only
chooses the metric of the step, not the minimiser.

With `lam` unset one search gives the whole path: lambda changes by a constant factor from step to step, each step
starting from the masks of the last. direction=up starts with the dense network and a small lambda and ranks the
units by the lambda at which they leave for good; direction=down starts with all masks at 0 and a large lambda and
ranks the units by the lambda at which they enter for good, which is the textbook's path. There the search begins with
a network that computes nothing.

With `lam` set the search is for this lambda alone, as Lasso is used in the paper's Figure 1: the support is the
choice. `_lasso.match_lambda` finds the lambda of a budget by bisection, one search per lambda;
the ranking (the support by |m|, then the others by how near they are to it) fills what is left to less than a unit.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spp.config import require
from spp.methods._ranking_config import RankingConfig, select_member

if TYPE_CHECKING:
    from spp.methods._lasso import LassoSearch
    from spp.structure.masked import MaskedModel


@dataclass(frozen=True, kw_only=True)
class LassoConfig(RankingConfig):
    """Settings of the penalty, of its path and of the selection."""

    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "lasso"
    lam: float | None = None
    """One lambda for the whole search; null: a path through all of them."""
    direction: str = "down"
    """Path only: down (lambda falls, units enter) or up (lambda rises, units leave)."""
    lam_max: float | None = None
    """Largest lambda of the path; null: down, the largest scaled gradient with all masks at 0; up, 10."""
    lam_ratio: float = 1e-3
    """Smallest lambda of the path over the largest."""
    lr: float = 0.03
    """Step size of the masks, in units of 1 / (s c_u)."""
    momentum: float = 0.9
    """Momentum of the running mean of the gradient."""
    priced: bool = True
    """A unit's penalty is lambda times its MACs; false: lambda for every unit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam", "lam_max"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a positive number, or null", "use null")
        require(self.lr > 0, "lr", self.lr, "a positive number", "use 0.03")
        require(self.direction in ("down", "up"), "direction", self.direction, "down, up", "use down")
        require(0 < self.lam_ratio < 1, "lam_ratio", self.lam_ratio, "(0, 1)", "use 1e-3")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "[0, 1)", "use 0.9")


METHOD_CONFIG = LassoConfig
select = select_member


def build_search(config: LassoConfig, masked: "MaskedModel", num_steps: int) -> "LassoSearch":
    """The search: of the path, or of one lambda where `config.lam` is set."""
    from spp.methods._lasso import LassoSearch

    return LassoSearch(config, masked, num_steps)
