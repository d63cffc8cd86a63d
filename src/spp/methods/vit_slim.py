"""ViT-Slim (CVPR 2022): gates on the units, driven to zero by L1 while the weights train; the largest gates stay.

As released: every gate starts at 1 and is one more parameter of AdamW; the loss gains w1 sum |gate| over the attention
and w2 sum |gate| over the MLPs (after the GELU); a weight of 0 leaves a family's gates at 1. One gate multiplies the
queries, the keys and the values of a channel, so that scores see its square. Afterwards the units are ranked by their
gates in two pools (scope=family); the gates become 0 or 1, and the weights of the search are trained on.
Gates per head (the released default) come with model.per_head=true, gates shared by the heads without.

Mended: units are ranked by |gate|, not by the signed gate, which puts strongly negative gates last; w1 and w2 are what
is added, whatever the number of devices; only the L1 pulls on the gates, no weight decay. `released_quirks=true`
brings back all three.

Left out: the gates on tokens (released: one per position and block on the normed tokens; those of the smallest gates
are set to zero from there on). Such a token is not gone: it still is a key and a value (of the bias), so that no
compact network without it computes the same, and the released FLOP counts are those of another function. Gates that
only set tokens to zero save nothing that our counter counts. Taking tokens out for good does not fit one search for all
budgets: what a unit costs would depend on how many tokens reach its block, and here it is one number, by which every
budget cuts the same order. Nor can the windows of a Swin lose single tokens.

Ours: the step size of the gates grows in a search so short that gates could not get from 1 to 0 by the released
one; `priced=true` weighs a gate by the cost of its unit instead of its family, and ranks the gates as they are in one
list; `tied=false` gives query-key and value channels a gate each. At scope=global without `priced` gates are divided by
costs like any score.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spp.config import require
from spp.methods._ranking_config import RankingConfig, select_member

if TYPE_CHECKING:
    from spp.methods._vit_slim import ViTSlimSearch
    from spp.structure.masked import MaskedModel


@dataclass(frozen=True, kw_only=True)
class ViTSlimConfig(RankingConfig):
    """Settings of the gates and of the selection."""

    name: str = "vit_slim"
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
    released_quirks: bool = False
    """Signed ranking, w1 and w2 divided by the number of devices, weight decay 1e-3 on the gates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("w1", "w2"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 1e-4")
        require(self.lr is None or self.lr > 0, "lr", self.lr, "a positive number, or null", "use null")


METHOD_CONFIG = ViTSlimConfig
select = select_member


def build_search(config: ViTSlimConfig, masked: "MaskedModel", num_steps: int) -> "ViTSlimSearch":
    """The search.

    Raises:
        ValueError: `tied` where query-key and value channels differ in number.
    """
    from spp.methods._vit_slim import ViTSlimSearch

    return ViTSlimSearch(config, masked, num_steps)
