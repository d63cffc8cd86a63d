"""Settings of RIA (relative importance and activations, Zhang et al. 2024).

Its release compares over the whole matrix unless told otherwise, and so does this; its tables mix that with Wanda by
row, so say group=row where methods are compared.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.weights.method import WeightMethodConfig


@dataclass(frozen=True, kw_only=True)
class RIAConfig(WeightMethodConfig):
    """A weight is worth RI_ij ||x_j||^a."""

    published_group: ClassVar[str] = "matrix"

    name: str = "ria"
    """Name of the method."""
    a: float = 0.5
    """Power of the norm of the input; 0 is RI."""

    def __post_init__(self) -> None:
        require(self.a >= 0, "a", self.a, "0 or more", "use 0.5")


CONFIG = RIAConfig
