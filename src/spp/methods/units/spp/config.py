"""Solution Path Pruning (ICLR 2025): its settings, its dynamics on the masks, its selection from the path.

With drive=curvature (ours; preset priced) the masks move by a second-order model of the loss at the dense network. Its
gradient at the masks m is F (m - 1), where F is the diagonal of the masks' Fisher information: the mean over tokens of
the squared gradient by the mask where that token passes, for answers drawn from the network's own outputs, averaged
over the steps so far. So a unit's drive neither changes its sign with the noise of a batch nor vanishes at an optimum,
and the network is never evaluated where all masks are far from 1. As units do not act on each other there, they enter
in the order of F over cost: that is a second-order Taylor score, of tokens and not of samples (proven by a test); the
path adds nothing to it. It needs no labels.

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

Ours: with `refine=obs` the order of the path stands down to `refine_from` of the dense MACs. There the network is cut
and repaired (spp.structure.repair), and what is left is ordered by the elimination of the method `obs`, which cuts
`refine_cuts` times and repairs in between. That takes further steps, behind those of the recipe, without labels. It is
one order all the same, so that members are nested; they are cut from the dense network. Above the place the order is
that of the path by score and scope, which then are part of the search.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from spp.config import later, require
from spp.methods.elimination.config import EliminationConfig
from spp.methods.method import MethodConfig, SearchCost

PRESETS = ("priced", "textbook", "released")
DRIVES = ("loss", "kl", "curvature")

MIXED_LABELS = {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
"""The labels that the released search trains its masks on (deit/engine.py 238-243, deit_search.py 303, 387)."""

REFINE_FROM = 0.6
REFINE_CUTS = 8

KL_SCALE_MASK = 0.9
"""Masks at which drive=kl measures the scale of its gradient: at the dense ones that is 0, but for stochastic depth."""

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

    drive: str = later("loss", neutral="loss")
    """What moves the masks: loss (the task's, by labels), kl (the distance to the dense network; no labels) or
    curvature (of the loss at the dense network; no labels)."""

    refine: str | None = later(None, neutral=None)
    """obs: below a size the units are ordered by elimination, and not by the path; null: by the path all the way."""
    refine_from: float | None = later(None, neutral=None)
    """MACs, as a share of the dense network's, down to which the order is that of the path; refine=obs; null: 0.6."""
    refine_cuts: int | None = later(None, neutral=None)
    """Times that the elimination measures, with a cut and a repair after each; refine=obs; null: 8."""
    clip: float | None = later(None, neutral=None)
    """Largest size of a unit's gradient over its scale and cost (preset priced), against heavy tails; null: any."""

    @property
    def is_driven_by_dense(self) -> bool:
        """As `drive` says."""
        return self.drive == "kl"

    @property
    def samples_targets(self) -> bool:  # type: ignore[override]  # of other methods it is the same for all
        """Of the elimination, and where the curvature drives; else steps have the labels, or the dense network."""
        return self.refine is not None or self.drive == "curvature"

    @property
    def refine_share(self) -> float:
        """`refine_from`, or its default."""
        return REFINE_FROM if self.refine_from is None else self.refine_from

    @property
    def elimination(self) -> EliminationConfig:
        """The settings of the elimination."""
        num_cuts = REFINE_CUTS if self.refine_cuts is None else self.refine_cuts
        return EliminationConfig(name=self.name, num_cuts=num_cuts)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.drive in DRIVES, "drive", self.drive, ", ".join(DRIVES), "use loss")
        require(self.preset in PRESETS, "preset", self.preset, ", ".join(PRESETS), "use priced")
        is_plain = self.preset == "priced" and not self.released_quirks
        allowed = "loss or kl, but with preset=priced and released_quirks=false"
        require(self.drive != "curvature" or is_plain, "drive", self.drive, allowed, "use loss")
        for name in ("lr", "kappa", "lam", "eta"):
            value = getattr(self, name)
            require(
                value is None or value > 0,
                name,
                value,
                "a positive number, or null for the preset's",
                "use null",
            )
        clip, has_clip = self.clip, self.preset == "priced"
        allowed = "null, or a positive number with preset=priced"
        require(clip is None or (has_clip and clip > 0), "clip", clip, allowed, "use 3")
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
        self._check_refining()

    def _check_refining(self) -> None:
        require(self.refine in (None, "obs"), "refine", self.refine, "obs, null", "use obs")
        if self.refine is None:
            for name in ("refine_from", "refine_cuts"):
                value = getattr(self, name)
                require(value is None, name, value, "null with refine=null", "use refine=obs, or leave it out")
            return
        quirks, allowed = self.released_quirks, "false with refine=obs, which leaves no ties"
        require(not quirks, "released_quirks", quirks, allowed, "use false")
        share, least = self.refine_share, EliminationConfig.cut_to
        allowed = f"a number between {least:g}, where the elimination makes its last cut, and 1"
        require(least < share < 1, "refine_from", share, allowed, f"use {REFINE_FROM:g}")
        cuts = self.refine_cuts
        require(cuts is None or cuts >= 1, "refine_cuts", cuts, "1 or more, or null", "use 8")

    @property
    def masks_first_maps(self) -> bool:
        return self.released_quirks

    def num_refining_steps(self, batch_size: int) -> tuple[int, int]:
        """Steps behind those of the recipe that keep the samples of the first repair, and that measure; refine=obs."""
        settings = self.elimination
        num_measuring = settings.num_cuts * math.ceil(settings.num_samples / batch_size)
        return math.ceil(settings.num_repair_samples / batch_size), num_measuring

    def search_cost(self, num_steps: int, batch_size: int) -> SearchCost:
        """That of the path and, with refine=obs, of what comes behind it: its steps, and a repair before every cut."""
        cost = super().search_cost(num_steps, batch_size)
        if self.refine is None:
            return cost
        num_repaired = self.elimination.num_cuts * self.elimination.num_repair_samples
        num_steps += sum(self.num_refining_steps(batch_size))
        return replace(cost, num_steps=num_steps, num_repaired=num_repaired)

    @property
    def num_revisions(self) -> int:
        """textbook: V follows the old masks; released: the cosine of the released span, and its places of the masks;
        kl: where the scale is measured."""
        return int(self.preset != "priced" or self.released_quirks) + int(self.drive == "kl")

    @property
    def num_revisions_of_texts(self) -> int:
        """As of obs, where that refines."""
        return int(self.refine == "obs")

    def search_settings(self, kind: str) -> dict[str, Any]:
        """The quirks choose the places of the masks in the search, too; without them it is as it was before that.

        Where the order is refined, what the network is cut by before that is part of the search.
        """
        quirks = {"released_quirks": True} if self.released_quirks else {}
        names = ("score", "scope", "min_units") if self.refine is not None else ()
        return {**super().search_settings(kind), **quirks, **{name: getattr(self, name) for name in names}}


CONFIG = SPPConfig
