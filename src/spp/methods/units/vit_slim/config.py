"""ViT-Slim (CVPR 2022): gates on the units, driven to zero by L1 while the weights train; the largest gates stay.

As released: every gate starts at 1 and is one more parameter of AdamW; the loss gains w1 sum |gate| over the attention
and w2 sum |gate| over the MLPs (after the GELU); a weight of 0 leaves a family's gates at 1. One gate multiplies the
queries, the keys and the values of a channel, so that scores see its square. Afterwards the units are ranked by their
gates in two pools (scope=family); the gates become 0 or 1, and the weights of the search are trained on.
Gates per head and channel (the released default) come with model.per_head=true, gates shared by the heads without. Two
of its options: one gate for a whole head (`unit=head`; released: --head_search), of which a budget may cut through the
last one, and `freeze_weights`, with which only gates and norms train.

Mended: units are ranked by |gate|, not by the signed gate, which puts strongly negative gates last; w1 and w2 are what
is added, whatever the number of devices; only the L1 pulls on the gates, no weight decay. `released_quirks=true`
brings back all three.

An option (`tokens` < 1): gates on tokens, one per block and position, tanh(zeta), that multiply what both norms of the
block put out; the loss gains token_weight sum |tanh(zeta)|. The largest stay, of all blocks in one list; a token that a
block keeps stays in all blocks before it. All members of the family have the same tokens, and each block's units are
ranked and paid for at the price that they have with those; fractions of a budget stay those of the dense network. What
the tokens leave is known when the search is done: only then is a budget in macs refused that is more than that. Mended:
a token that leaves is gone before its block. As released it is set to zero behind the norms, and still is a key and a
value (of the bias): no network without it computes the same, nothing is saved, and the FLOP counts are those of another
function. Mended, and without a quirk that brings it back: the class token and whatever else stands before the patches
have no gates and stay, for the output head reads them. Tokens cannot leave the windows of a Swin.

Ours: the step size of the gates grows in a search so short that gates could not get from 1 to 0 by the released
one; `priced=true` weighs a gate by the cost of its unit instead of its family, and ranks the gates as they are in one
list; `tied=false` gives query-key and value channels a gate each. At scope=global without `priced` gates are divided by
costs like any score.
"""

from dataclasses import dataclass

from spp.config import later, require
from spp.methods.ranking import RankingConfig

UNITS = ("channel", "head")


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
    tokens: float = 1.0
    """Share of the patches, over all blocks, whose gates stay; those that a later block needs stay too. 1: no gates."""
    token_weight: float = 1e-4
    """Weight of the L1 on token gates (released: 1e-4 over 4 devices)."""
    lr: float | None = None
    """Step size of the gates; null: the released 5e-4, or 2 / number of steps (of zeta 6) if that is more."""
    unit: str = later("channel", neutral="channel")
    """What an attention has a gate for: channel, or head."""
    freeze_weights: bool = later(False, neutral=False)
    """Of the network only the norms train along."""
    tied: bool = True
    """One gate for a channel of queries, keys and values; false: query-key and value channels apart."""
    scope: str = "family"
    """family (equal shares of attention and MLP units) or global (one cost-aware list)."""
    released_quirks: bool = False
    """Signed ranking, the weights of L1 divided by the number of devices, weight decay 1e-3 on the gates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("w1", "w2"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 1e-4")
        require(self.unit in UNITS, "unit", self.unit, ", ".join(UNITS), "use channel")
        is_tied = self.tied or self.unit == "channel"
        require(is_tied, "tied", self.tied, "true with unit=head, whose gates tie all channels", "leave it out")
        require(0 < self.tokens <= 1, "tokens", self.tokens, "more than 0, up to 1", "use 1")
        require(self.token_weight > 0, "token_weight", self.token_weight, "more than 0", "use 1e-4")
        weight, default = self.token_weight, type(self).token_weight
        allowed = f"{default}, as tokens=1 has no gates on tokens"
        require(
            self.tokens < 1 or weight == default, "token_weight", weight, allowed, "leave it out, or use tokens=0.7"
        )
        require(self.lr is None or self.lr > 0, "lr", self.lr, "a positive number, or null", "use null")

    @property
    def needs_heads(self) -> bool:
        return self.unit == "head"


CONFIG = ViTSlimConfig
