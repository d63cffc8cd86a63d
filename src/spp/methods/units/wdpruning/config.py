"""WDPruning (AAAI 2022): learned scores and one learned threshold per map, held to the budget by multipliers.

As released: in the forward pass a map keeps the ceil(sigmoid(threshold) n) units of the largest scores; scores start at
0 and thresholds at 10. The backward pass is straight-through: a score gets the gradient of its mask, a threshold the
sum of gradient times mask. The loss also has l1 (e - R) + l2 (e - R)^2 while the kept share e of the costs is above R;
l1 and l2 start at 0 and climb their own gradient. Weights train along. Thresholds have AdamW without decay on a cosine.

Mended: scores learn with the thresholds, undecayed (released: with the weights, decay .05); e comes from the model's
real prices (released: 144, 768, 3072 of DeiT-B, in parameters); the epsilon of LayerNorm stays the model's.

Ours: units are the pairs' channels, or with `unit=head` whole heads, as released; the
pruned rows of the projection and of fc2, which leave the residual width as it is, have no counterpart; R is the
budget's share, in its kind. Momentum carries e below R, far in a short search: all thresholds are then lifted together
until e is R, and in the end shifted together until the choice fills the budget. The cosines run over steps, and step
sizes default to larger ones for searches too short for the released ones.

As an option (`freeze_tokens`), the class token and the position embedding do not train along; the released code leaves
them out of all groups of its optimizer.

Depth, with `depth=k` (ViT only): as released, a fresh LayerNorm and output head stand behind block k, and the loss is
the sum of both output heads'; the member has k blocks and that head. Ours: which depth is said before the search, not
after it, so that the k blocks can be pruned to the budget, a share of the whole network still; the blocks behind them
stay dense, as nothing of them is in the member. With `exits=[k, ...]` it is chosen after the search, as released
(--classifiers): all blocks are pruned to R under the loss of all output heads, those behind the blocks k included. Ours
is how: in the last twentieth of the steps scores and thresholds rest, and the masks are in turn those with which each
depth fills the budget (the thresholds of its blocks shifted together); the depth of the least mean loss becomes the
member, and the summary has all of them. `depth` then says one of the exits instead. A depth whose network cannot have
the asked size is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import later, require
from spp.methods.method import MethodConfig

UNITS = ("channel", "head")


@dataclass(frozen=True, kw_only=True)
class WDPruningConfig(MethodConfig):
    """Settings of the search."""

    kinds: ClassVar[tuple[str, ...]] = ("budget",)

    name: str = "wdpruning"
    unit: str = "channel"
    """What attention drops: channel, or head."""
    lr: float | None = None
    """First step size of the thresholds; null: .0025, or 20 / steps where that is more."""
    score_lr: float | None = None
    """First step size of the scores; null: that of the thresholds, with released_quirks 1e-3."""
    multiplier_lr: float | None = None
    """First step size of the multipliers; null: 10, or 40000 / steps where that is more."""
    depth: int | None = None
    """Blocks of the member; null: all, or with exits the best."""
    exits: list[int] = later(default_factory=list, neutral=[])
    """Blocks behind which further output heads train along, so that the depth is chosen after the search."""
    freeze_tokens: bool = later(False, neutral=False)
    """Class token and position embedding stand still in the search, as released."""
    min_units: int = 1
    """Units that every map keeps at least."""
    released_quirks: bool = False
    """Scores decay, widths are multiples of 16 and may fall below the budget in the search, whose LayerNorms have
    epsilon 1e-5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.unit in UNITS, "unit", self.unit, ", ".join(UNITS), "use channel")
        for name in ("lr", "score_lr", "multiplier_lr"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a positive number, or null", "use null")
        require(self.depth is None or self.depth >= 1, "depth", self.depth, "1 or more, or null", "use null")
        exits, allowed = self.exits, "different numbers of blocks, 1 or more"
        are_numbers = all(isinstance(block, int) and block >= 1 for block in exits) and len(set(exits)) == len(exits)
        require(are_numbers, "exits", exits, allowed, "use exits=[10]")
        is_exit = not exits or self.depth is None or self.depth in exits
        require(is_exit, "depth", self.depth, f"null, or one of the exits {exits}", "use null")

    @property
    def needs_heads(self) -> bool:
        return self.unit == "head"

    @property
    def num_revisions(self) -> int:
        # Distillation reaches the second output head.
        return int(self.depth is not None and not self.exits)


CONFIG = WDPruningConfig
