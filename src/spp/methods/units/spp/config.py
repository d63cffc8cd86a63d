"""Solution Path Pruning (ICLR 2025): its settings, its dynamics on the masks, its selection from the path.

What `preset` and `score` choose from is all meant to be used. Two things in the released selection and compaction are
mistakes, mended here and brought back by `released_quirks=true`, with any preset:

* Ties: the released code keeps every unit whose score is at least that of the last one it wants. With score=S, its own,
  units that never entered all have 0: where more of them are than shall go, nothing is pruned. So a member may be
  larger than asked; its record says how large it is.
* Scale: a compact attention divides its scores by the root of the query-key width that it has kept, while the search
  and the walk have that of the full head. The member then is another function than the masked network it comes from.
  An attention that keeps values and no query-key unit has no such scale and is refused.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.method import MethodConfig

PRESETS = ("priced", "textbook", "released")


@dataclass(frozen=True, kw_only=True)
class SPPConfig(MethodConfig):
    """Settings of the dynamics and of the selection; null takes the preset's own value."""

    kinds: ClassVar[tuple[str, ...]] = ("path",)
    trains_weights: ClassVar[bool] = False
    selection_fields: ClassVar[tuple[str, ...]] = ("score", "scope", "min_units", "within", "released_quirks")

    name: str = "spp"
    preset: str = "priced"
    """priced (default), textbook (the paper's scheme) or released (the authors' recurrences)."""
    lr: float | None = None
    """Step size of the masks (alpha in the paper)."""
    kappa: float | None = None
    """Scale of Gamma; in textbook also of the mask step."""
    lam: float | None = None
    """Threshold of V above which a unit is in the support."""
    rho: float | None = None
    """Strength of the coupling between M and Gamma."""
    eta: float | None = None
    """Step size of V (preset priced); null: 2 / number of steps."""
    momentum: float | None = None
    """Momentum of the mask gradient (preset priced)."""
    calibration_batches: int = 20
    """First batches, which only measure the gradient scale at the dense masks (preset priced); never more than a tenth
    of all."""
    occupancy_interval: int = 10
    """Batches of an epoch between two samples of the support, the released code's score."""
    score: str = "entry"
    """What orders the units: entry (time of entry), V (its final value) or S (sampled occupancy)."""
    scope: str | None = None
    """global (one cost-aware list) or family (equal shares of attention and MLP units); null: the preset's."""
    min_units: int = 1
    """Units that every pair keeps at least."""
    within: str = "score"
    """Which units of a pair stay, once the path has said how many: score, or random (a control: widths alone)."""
    released_quirks: bool = False
    """Units that tie with the last one chosen stay, too; attention scores are scaled by the kept query-key width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.preset in PRESETS, "preset", self.preset, ", ".join(PRESETS), "use priced")
        for name in ("lr", "kappa", "lam", "eta"):
            value = getattr(self, name)
            require(
                value is None or value > 0,
                name,
                value,
                "a positive number, or null for the preset's",
                "use null",
            )
        require(self.rho is None or self.rho >= 0, "rho", self.rho, "0 or more, or null", "use null")
        require(
            self.momentum is None or 0 <= self.momentum < 1,
            "momentum",
            self.momentum,
            "[0, 1), or null",
            "use 0.9",
        )
        for name in ("calibration_batches", "occupancy_interval"):
            require(getattr(self, name) > 0, name, getattr(self, name), "1 or more", "leave it out")
        require(self.score in ("entry", "V", "S"), "score", self.score, "entry, V, S", "use entry")
        require(self.scope in (None, "global", "family"), "scope", self.scope, "global, family, null", "use null")
        require(self.within in ("score", "random"), "within", self.within, "score, random", "use score")


CONFIG = SPPConfig
