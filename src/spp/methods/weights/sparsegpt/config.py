"""Settings of SparseGPT (Frantar and Alistarh 2023): none beside the axes.

As published it chooses in blocks of 128 columns over all rows, while it updates. With update=none the mask of that
sweep is put on the weights as they were; with group=row or matrix it is chosen before the sweep.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.methods.weights.method import WeightMethodConfig


@dataclass(frozen=True, kw_only=True)
class SparseGPTConfig(WeightMethodConfig):
    """A weight is worth w_ij^2 / U_jj^2 with H^-1 = U^T U."""

    published_group: ClassVar[str] = "block"
    published_update: ClassVar[str] = "obs"

    name: str = "sparsegpt"
    """Name of the method."""


CONFIG = SparseGPTConfig
