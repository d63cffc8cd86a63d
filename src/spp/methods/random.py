"""Random: a score drawn for every unit, whatever the weights, the data and the costs. The floor under all methods.

The draw depends on `seed` and on the seed of the stage alone. Both scopes ignore the costs, or else random would favour
cheap units: "global" shuffles all units into one list, "family" the units of attention and those of MLPs apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spp.methods._ranking_config import RankingConfig, select_member

if TYPE_CHECKING:
    from spp.methods._random import RandomSearch
    from spp.structure.masked import MaskedModel


@dataclass(frozen=True, kw_only=True)
class RandomConfig(RankingConfig):
    """Settings of the draw and of the selection."""

    MAX_SEARCH_EPOCHS: ClassVar[int] = 0
    """The draw needs no data."""
    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "random"
    seed: int = 0
    """Number of the draw: another one draws anew for the same seed of the point."""


METHOD_CONFIG = RandomConfig
select = select_member


def build_search(
    config: RandomConfig, masked: "MaskedModel", num_steps: int, *, seed: int | None = None
) -> "RandomSearch":
    """The search; without `seed` that which torch was started with, the stage's. `num_steps` may be 0."""
    import torch

    from spp.methods._random import RandomSearch

    return RandomSearch(config, masked, num_steps, torch.initial_seed() if seed is None else seed)
