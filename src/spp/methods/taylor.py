"""Taylor and Fisher: a unit is worth what the loss is expected to change by when it goes.

At the dense masks m = 1, with g_i the gradient of the loss of sample i: order 1 is the mean of |g_i m|, order 2 the
mean of (g_i m)^2, the diagonal of the empirical Fisher matrix (Molchanov et al. 2019). The mean over samples is taken
of each sample's own gradient by default: of a batch, positive and negative ones cancel before the absolute value.
The weights and the masks stand still. One list over all families, by score per cost, is the default: with two pools the
same scores do much worse at small budgets.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ranking import Ranking
    from spp.methods._taylor import TaylorSearch
    from spp.structure.masked import MaskedModel

SELECTION_FIELDS = ("scope", "min_units")


@dataclass(frozen=True, kw_only=True)
class TaylorConfig(Config):
    """Settings of the score and of the selection."""

    MAX_SEARCH_EPOCHS: ClassVar[int] = 1
    """One pass over the training images is more than the score needs to settle."""
    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "taylor"
    """Name of the method."""
    order: int = 1
    """1 (mean |g m|, Taylor) or 2 (mean (g m)^2, Fisher)."""
    per_sample: bool = True
    """Each sample's own gradient; false: the gradient of a batch."""
    scope: str = "global"
    """global (one cost-aware list) or family (equal shares of attention and MLP units)."""
    min_units: int = 1
    """Units that every pair keeps at least."""

    def __post_init__(self) -> None:
        require(self.order in (1, 2), "order", self.order, "1, 2", "use 1")
        require(self.scope in ("global", "family"), "scope", self.scope, "global, family", "use global")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the ranking."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a ranking; changing them repeats no search."""
        return {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}


METHOD_CONFIG = TaylorConfig


def build_search(config: TaylorConfig, masked: "MaskedModel", num_steps: int) -> "TaylorSearch":
    """The search; the loss it sees must be a mean over the samples of a batch."""
    from spp.methods._taylor import TaylorSearch

    return TaylorSearch(config, masked, num_steps)


def select(config: TaylorConfig, path: "Ranking", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
