"""Random: a score drawn for every unit, whatever the weights, the data and the costs. The floor under all methods.

The draw depends on `seed` and on the seed of the point alone. Both scopes ignore the costs, or else random would favour
cheap units: "global" shuffles all units into one list, "family" the units of attention and those of MLPs apart.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class RandomConfig(RankingConfig):
    """Settings of the draw and of the selection."""

    max_search_epochs: ClassVar[int | None] = 0
    """The draw needs no data."""
    trains_weights: ClassVar[bool] = False

    name: str = "random"
    seed: int = 0
    """Number of the draw: another one draws anew for the same seed of the point."""


CONFIG = RandomConfig
