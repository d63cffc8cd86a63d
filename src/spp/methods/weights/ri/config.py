"""Settings of RI (relative importance, Zhang et al. 2024): none. It needs no data."""

from dataclasses import dataclass
from typing import ClassVar

from spp.methods.weights.method import WeightMethodConfig


@dataclass(frozen=True, kw_only=True)
class RIConfig(WeightMethodConfig):
    """A weight is worth its share of its row and of its column."""

    published_group: ClassVar[str] = "matrix"

    name: str = "ri"
    """Name of the method."""


CONFIG = RIConfig
