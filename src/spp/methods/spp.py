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

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spp.dynamics.bregman import BregmanOptimizer
    from spp.dynamics.path import SolutionPath
    from spp.structure.masked import Masks

PRESETS = ("priced", "textbook", "released")
SELECTION_FIELDS = ("score", "scope", "min_units", "within", "released_quirks")


@dataclass(frozen=True, kw_only=True)
class SPPConfig(Config):
    """Settings of the dynamics and of the selection; null takes the preset's own value."""

    name: str = "spp"
    """Name of the method."""
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
        require(self.score in ("entry", "V", "S"), "score", self.score, "entry, V, S", "use entry")
        require(self.scope in (None, "global", "family"), "scope", self.scope, "global, family, null", "use null")
        require(self.within in ("score", "random"), "within", self.within, "score, random", "use score")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the path."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a path; changing them repeats no search."""
        chosen = {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}
        if not self.released_quirks:
            del chosen["released_quirks"]  # families that are cut without them keep the key they always had
        return chosen


METHOD_CONFIG = SPPConfig


def build_optimizer(config: SPPConfig, masks: "Masks", num_steps: int) -> "BregmanOptimizer":
    """The dynamics on all masks of a model, for a search of `num_steps` steps."""
    from spp.dynamics.bregman import BregmanOptimizer

    return BregmanOptimizer(
        masks,
        config.preset,
        lr=config.lr,
        kappa=config.kappa,
        lam=config.lam,
        rho=config.rho,
        momentum=config.momentum,
        eta=config.eta,
        num_steps=num_steps,
    )


def learning_rate(config: SPPConfig, base_lr: float, epoch: int, num_epochs: int) -> float:
    """Step size in `epoch`: constant, but for `released` a cosine to 1e-5 (deit_search.py, no warm-up)."""
    if config.preset != "released":
        return base_lr
    return 1e-5 + (base_lr - 1e-5) * (1 + math.cos(math.pi * epoch / num_epochs)) / 2


def select(config: SPPConfig, path: "SolutionPath", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    masks = path.masks(
        **{kind: size},
        scope=config.scope,
        score=config.score,
        min_units=config.min_units,
        keep_ties=config.released_quirks,
    )
    return _shuffled(masks) if config.within == "random" else masks


def finish_member(config: SPPConfig, small: "nn.Module", seed: int) -> dict[str, Any]:
    """The released scale of a compact attention, where asked for; see `registry.finish_member`.

    Raises:
        ValueError: an attention has kept values and no query-key unit.
    """
    if not config.released_quirks:
        return {}
    from spp.structure.compact import scale_by_kept_width

    scale_by_kept_width(small)
    return {"is_scaled_by_kept_width": True}


def _shuffled(masks: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """As many units of every pair, drawn by lot; smaller masks stay subsets of larger ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, mask in masks.items():
        order = torch.randperm(len(mask), generator=generator)
        drawn[name] = torch.zeros_like(mask).index_fill_(0, order[: int(mask.sum())], True)
    return drawn
