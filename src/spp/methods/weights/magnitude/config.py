"""Settings of magnitude: none. It needs no data."""

from dataclasses import dataclass
from typing import ClassVar

from spp.methods.weights.method import WeightMethodConfig


@dataclass(frozen=True, kw_only=True)
class MagnitudeConfig(WeightMethodConfig):
    """A weight is worth |w|."""

    published_group: ClassVar[str] = "matrix"

    name: str = "magnitude"
    """Name of the method."""


CONFIG = MagnitudeConfig
