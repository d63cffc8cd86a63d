"""Random: a score drawn for every unit, whatever the weights, the data and the costs. The floor under all methods.

The draw depends on `seed` and on the seed of the stage alone. Both scopes ignore the costs, or else random would favour
cheap units: "global" shuffles all units into one list, "family" the units of attention and those of MLPs apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ranking import Ranking
    from spp.methods._random import RandomSearch
    from spp.structure.masked import MaskedModel

SELECTION_FIELDS = ("scope", "min_units")


@dataclass(frozen=True, kw_only=True)
class RandomConfig(Config):
    """Settings of the draw and of the selection."""

    MAX_SEARCH_EPOCHS: ClassVar[int] = 0
    """The draw needs no data."""
    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "random"
    """Name of the method."""
    seed: int = 0
    """Number of the draw: another one draws anew for the same seed of the point."""
    scope: str = "global"
    """global (one list) or family (equal shares of attention and MLP units)."""
    min_units: int = 1
    """Units that every pair keeps at least."""

    def __post_init__(self) -> None:
        require(self.scope in ("global", "family"), "scope", self.scope, "global, family", "use global")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the ranking."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a ranking; changing them repeats no search."""
        return {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}


METHOD_CONFIG = RandomConfig


def build_search(
    config: RandomConfig, masked: "MaskedModel", num_steps: int, *, seed: int | None = None
) -> "RandomSearch":
    """The search; without `seed` that which torch was started with, the stage's. `num_steps` may be 0."""
    import torch

    from spp.methods._random import RandomSearch

    return RandomSearch(config, masked, num_steps, torch.initial_seed() if seed is None else seed)


def select(config: RandomConfig, path: "Ranking", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
