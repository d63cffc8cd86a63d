"""The contract of a method that chooses single weights. A new one is a folder here and a file in conf/method.

The folder holds

    __init__.py   empty but for a docstring
    config.py     `CONFIG`, a subclass of WeightMethodConfig; without torch, because planning reads it
    choose.py     `METHOD`, a subclass of spp.sparsity.problem.MaskChooser that takes the config; imported when a stage
                  runs
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from spp.config import Config
from spp.sparsity.config import SparsityConfig


@dataclass(frozen=True, kw_only=True)
class WeightMethodConfig(Config):
    """Settings of a method, and what it was published with on the axes that all methods share."""

    published_group: ClassVar[str] = "row"
    """Weights that compete with each other."""
    published_update: ClassVar[str] = "none"
    """What becomes of the kept weights."""
    own_shrinkage: ClassVar[float] = 0.0
    """Shrinkage of the Gram matrix."""

    name: str
    """Name of the method."""

    def resolve(self, axes: SparsityConfig) -> SparsityConfig:
        """The axes with what the method proposes where they are left open; this is what a key hashes."""
        return replace(
            axes,
            group=axes.group or self.published_group,
            update=axes.update or self.published_update,
            shrinkage=self.own_shrinkage if axes.shrinkage is None else axes.shrinkage,
        )
