"""Magnitude: a unit is worth the size of its weights. It needs no data and no step.

A unit's weights are those that leave with it: its rows of the query and the key map, its rows of the value map and
its columns of the projection, or its row of fc1 and column of fc2, those of all heads where the heads share it. Biases
do not count. The size is their squared L2 norm, a sum over weights as the cost is, so that score per cost is a mean
square; or their root mean square, which is a mean already and divided by no cost.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class MagnitudeConfig(RankingConfig):
    """Settings of the score and of the selection."""

    max_search_epochs: ClassVar[int | None] = 0
    """The score needs the weights alone."""
    trains_weights: ClassVar[bool] = False

    name: str = "magnitude"
    norm: str = "l2"
    """l2 (squared L2 norm of a unit's weights) or rms (their root mean square)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm in ("l2", "rms"), "norm", self.norm, "l2, rms", "use l2")


CONFIG = MagnitudeConfig
