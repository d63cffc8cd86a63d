"""Taylor and Fisher: a unit is worth what the loss is expected to change by when it goes.

At the dense masks m = 1, with g_i the gradient of the loss of sample i: order 1 is the mean of |g_i m|, order 2 the
mean of (g_i m)^2, the diagonal of the empirical Fisher matrix (Molchanov et al. 2019). The mean over samples is taken
of each sample's own gradient by default: of a batch, positive and negative ones cancel before the absolute value.
The weights and the masks stand still. One list over all families, by score per cost, is the default: with two pools the
same scores do much worse at small budgets.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class TaylorConfig(RankingConfig):
    """Settings of the score and of the selection."""

    max_search_epochs: ClassVar[int | None] = 1
    """One pass over the training samples is more than the score needs to settle."""
    trains_weights: ClassVar[bool] = False

    name: str = "taylor"
    order: int = 1
    """1 (mean |g m|, Taylor) or 2 (mean (g m)^2, Fisher)."""
    per_sample: bool = True
    """Each sample's own gradient; false: the gradient of a batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order in (1, 2), "order", self.order, "1, 2", "use 1")


CONFIG = TaylorConfig
