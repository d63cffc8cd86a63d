"""Magnitude: a unit is worth the size of its weights. It needs no data and no step.

A unit's weights are those that leave with it: its rows of the query and the key map, its rows of the value map and
its columns of the projection, or its row of fc1 and column of fc2, those of all heads where the heads share it. Biases
do not count. The size is their squared L2 norm, a sum over weights as the cost is, so that score per cost is a mean
square; or their root mean square, which is a mean already and divided by no cost.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ranking import Ranking
    from spp.methods._magnitude import MagnitudeSearch
    from spp.structure.masked import MaskedModel

SELECTION_FIELDS = ("scope", "min_units")


@dataclass(frozen=True, kw_only=True)
class MagnitudeConfig(Config):
    """Settings of the score and of the selection."""

    MAX_SEARCH_EPOCHS: ClassVar[int] = 0
    """The score needs the weights alone."""
    TRAINS_WEIGHTS: ClassVar[bool] = False
    """They stand still during the search."""
    name: str = "magnitude"
    """Name of the method."""
    norm: str = "l2"
    """l2 (squared L2 norm of a unit's weights) or rms (their root mean square)."""
    scope: str = "global"
    """global (one cost-aware list) or family (equal shares of attention and MLP units)."""
    min_units: int = 1
    """Units that every pair keeps at least."""

    def __post_init__(self) -> None:
        require(self.norm in ("l2", "rms"), "norm", self.norm, "l2, rms", "use l2")
        require(self.scope in ("global", "family"), "scope", self.scope, "global, family", "use global")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the ranking."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a ranking; changing them repeats no search."""
        return {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}


METHOD_CONFIG = MagnitudeConfig


def build_search(config: MagnitudeConfig, masked: "MaskedModel", num_steps: int) -> "MagnitudeSearch":
    """The search; `num_steps` may be 0."""
    from spp.methods._magnitude import MagnitudeSearch

    return MagnitudeSearch(config, masked, num_steps)


def select(config: MagnitudeConfig, path: "Ranking", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
