"""Settings of Wanda (Sun et al. 2024): none beside the axes; by row, without an update."""

from dataclasses import dataclass

from spp.methods.weights.method import WeightMethodConfig


@dataclass(frozen=True, kw_only=True)
class WandaConfig(WeightMethodConfig):
    """A weight is worth |w_ij| ||x_j||."""

    name: str = "wanda"
    """Name of the method."""


CONFIG = WandaConfig
