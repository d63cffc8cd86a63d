"""Solution Path Pruning (ICLR 2025): its settings, its dynamics on the masks, its selection from the path.

What `preset` and `score` choose from is all meant to be used. Preset `released` also trains its masks on mixed labels,
as the released search does (Mixup 0.8, CutMix 1.0, smoothing 0.1), unless update.mixup, update.cutmix or
update.label_smoothing say otherwise; the others see clean labels. Its step size falls on the cosine of the released
300 epochs, of which a search here may be the beginning, one epoch late: epochs 0 and 1 both have the first value.

The masks multiply the queries alone, the values before the projection, and the MLP behind its activation, as the paper
writes its pairs. The released code multiplies queries *and* keys, so that scores see the square of a mask, and the MLP
before its activation (mock.py 180-181, 123). Masks of 0 and 1 are the same in both places; others, and so the order,
are not. Three things of the released code are brought back by `released_quirks=true`, with any preset: these places,
and two mistakes of its selection and compaction, which are mended here:

* Ties: the released code keeps every unit whose score is at least that of the last one it wants. With score=S, its own,
  units that never entered all have 0: where more of them are than shall go, nothing is pruned. So a member may be
  larger than asked; its record says how large it is.
* Scale: a compact attention divides its scores by the root of the query-key width that it has kept, while the search
  and the walk have that of the full head. The member then is another function than the masked network it comes from.
  An attention that keeps values and no query-key unit has no such scale and is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from spp.config import later, require
from spp.methods.method import MethodConfig

PRESETS = ("priced", "textbook", "released")

MIXED_LABELS = {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
"""The labels that the released search trains its masks on (deit/engine.py 238-243, deit_search.py 303, 387)."""

RELEASED_EPOCHS = 300
"""Epochs over which the released search lowers its step size (deit_search.py, --epochs)."""


@dataclass(frozen=True, kw_only=True)
class SPPConfig(MethodConfig):
    """Settings of the dynamics and of the selection; null takes the preset's own value."""

    kinds: ClassVar[tuple[str, ...]] = ("path",)
    trains_weights: ClassVar[bool] = False
    selection_fields: ClassVar[tuple[str, ...]] = ("score", "scope", "min_units", "within", "released_quirks")
    preset_recipes: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType(
        {"released": {"update": MIXED_LABELS}}
    )

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
    cosine_epochs: int | None = later(None, neutral=None)
    """Epochs over which the step size falls on a cosine to 1e-5 (preset released); null: 300, as released."""
    score: str = "entry"
    """What orders the units: entry (time of entry), V (its final value) or S (sampled occupancy)."""
    scope: str | None = None
    """global (one cost-aware list) or family (equal shares of attention and MLP units); null: the preset's."""
    min_units: int = 1
    """Units that every pair keeps at least."""
    within: str = "score"
    """Which units of a pair stay, once the path has said how many: score, or random (a control: widths alone)."""
    released_quirks: bool = False
    """Masks multiply where the released code does; units that tie with the last one chosen stay, too; attention scores
    are scaled by the kept query-key width."""

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
        cosine, has_cosine = self.cosine_epochs, self.preset == "released"
        require(
            cosine is None or (has_cosine and cosine > 0),
            "cosine_epochs",
            cosine,
            "null, or 1 or more with preset=released",
            "use null",
        )
        require(self.score in ("entry", "V", "S"), "score", self.score, "entry, V, S", "use entry")
        require(self.scope in (None, "global", "family"), "scope", self.scope, "global, family, null", "use null")
        require(self.within in ("score", "random"), "within", self.within, "score, random", "use score")

    @property
    def masks_first_maps(self) -> bool:
        return self.released_quirks

    @property
    def num_revisions(self) -> int:
        """textbook: V follows the old masks; released: the cosine of the released span, and its places of the masks."""
        return int(self.preset != "priced" or self.released_quirks)

    def search_settings(self, kind: str) -> dict[str, Any]:
        """The quirks choose the places of the masks in the search, too; without them it is as it was before that."""
        quirks = {"released_quirks": True} if self.released_quirks else {}
        return {**super().search_settings(kind), **quirks}


CONFIG = SPPConfig
