"""ViT-Slim (CVPR 2022): gates on the units, driven to zero by L1 while the weights train; the largest gates stay.

As released: every gate starts at 1 and is one more parameter of AdamW; the loss gains w1 sum |gate| over the attention
and w2 sum |gate| over the MLPs (after the GELU); a weight of 0 leaves a family's gates at 1. One gate multiplies the
queries, the keys and the values of a channel, so that scores see its square. Afterwards the units are ranked by their
gates in two pools (scope=family); the gates become 0 or 1, and the weights of the search are trained on.
Gates per head (the released default) come with model.per_head=true, gates shared by the heads without.

Mended: units are ranked by |gate|, not by the signed gate, which puts strongly negative gates last; w1 and w2 are what
is added, whatever the number of devices; only the L1 pulls on the gates, no weight decay. `released_quirks=true`
brings back all three.

Left out: the gates on tokens. A token whose gate is 0 still is a key and a value (of the bias), so that no compact
network without it computes the same, and the released FLOP counts are those of another function.

Ours: the step size of the gates grows in a search so short that gates could not get from 1 to 0 by the released
one; `priced=true` weighs a gate by the cost of its unit instead of its family, and ranks the gates as they are in one
list; `tied=false` gives query-key and value channels a gate each. At scope=global without `priced` gates are divided by
costs like any score.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ranking import Ranking
    from spp.methods._vit_slim import ViTSlimSearch
    from spp.structure.masked import MaskedModel

SELECTION_FIELDS = ("scope", "min_units")


@dataclass(frozen=True, kw_only=True)
class ViTSlimConfig(Config):
    """Settings of the gates and of the selection."""

    name: str = "vit_slim"
    """Name of the method."""
    w1: float = 2e-4
    """Weight of the L1 on attention gates (released: 2e-4 over 4 devices)."""
    w2: float = 5e-5
    """Weight of the L1 on MLP gates (released: 5e-5 over 4 devices)."""
    priced: bool = False
    """A gate's weight is w1 times its unit's MACs over those of the mean attention gate; w2 is not used."""
    lr: float | None = None
    """Step size of the gates; null: the released 5e-4, or 2 / number of steps if that is more."""
    tied: bool = True
    """One gate for a channel of queries, keys and values; false: query-key and value channels apart."""
    scope: str = "family"
    """family (equal shares of attention and MLP units) or global (one cost-aware list)."""
    min_units: int = 1
    """Units that every pair keeps at least."""
    released_quirks: bool = False
    """Signed ranking, w1 and w2 divided by the number of devices, weight decay 1e-3 on the gates."""

    def __post_init__(self) -> None:
        for name in ("w1", "w2"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 1e-4")
        require(self.lr is None or self.lr > 0, "lr", self.lr, "a positive number, or null", "use null")
        require(self.scope in ("global", "family"), "scope", self.scope, "global, family", "use family")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the ranking."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a ranking; changing them repeats no search."""
        return {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}


METHOD_CONFIG = ViTSlimConfig


def build_search(config: ViTSlimConfig, masked: "MaskedModel", num_steps: int) -> "ViTSlimSearch":
    """The search.

    Raises:
        ValueError: `tied` where query-key and value channels differ in number.
    """
    from spp.methods._vit_slim import ViTSlimSearch

    return ViTSlimSearch(config, masked, num_steps)


def select(config: ViTSlimConfig, path: "Ranking", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
