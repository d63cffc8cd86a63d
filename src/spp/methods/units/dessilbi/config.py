"""DessiLBI (ICML 2020) on the weights of whole units: a group enters where its weights stay large along the path.

As released (for CNNs, nothing of it for transformers): every weight W has a twin Gamma, which starts at 0 and is held
to it by |W - Gamma|^2 / 2 mu; W follows its gradient and that of the coupling, and Gamma the linearised Bregman path

    W' = W - step (gradient + (W - Gamma) / mu),  V' = V + (lr / mu) (W - Gamma),  Gamma' = kappa shrink(V')

at the old W and Gamma, where shrink takes lam off the norm of a group and sets a group of a smaller norm to 0. Groups
that leave 0 early are important.

Ours, as a transformer has no filters: a group is what leaves with a unit, without biases: a "qk" unit's rows of W_q and
W_k, a "vo" unit's rows of W_v and columns of W_proj, an MLP unit's row of fc1 and column of fc2, those of all heads
where the heads share the unit. The norm of a group is the root mean square (the form of the released lottery
experiments), so that large groups do not come first for being large; scope=global divides it by no cost. lam comes from
the wanted time of entry, as weights of 0.02 to 0.05 would take forever to reach the released 1. The coupling joins the
gradient that the recipe's optimizer sees (released: outside of its momentum). The order is the time of entry with its
fraction of a step, and for a group that never entered the time at which it would, its weights standing still: among
equals the order of their RMS norm. Masks stay at 1 and weights dense.

Mended, and brought back by `released_quirks=true`: the plain L2 norm of the core optimizer, which favours large groups,
and the order by the norm of the weights less the first whole step (released: epoch) in the support, which mixes the
two units.

The search holds V in float32, one number per weight of the groups; Gamma is V times a factor per group and is not kept.
"""

from dataclasses import dataclass

from spp.config import require
from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class DessiLBIConfig(RankingConfig):
    """Settings of the path and of the selection."""

    name: str = "dessilbi"
    mu: float = 100.0
    """Looseness of the coupling: weights are pulled to Gamma by 1 / mu."""
    kappa: float = 1.0
    """Scale of Gamma."""
    lr: float | None = None
    """Step size of V; null: Gamma follows the weights within a twentieth of the search, kappa lr / mu = 20 / steps."""
    lam: float | None = None
    """Norm of V above which a group is in the support; null: by `horizon`."""
    horizon: float = 0.5
    """Share of the search after which the median group would enter, if its weights stood still (without `lam`)."""
    released_quirks: bool = False
    """L2 norms that favour large groups, and whole steps less the norm of the weights for an order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mu", "kappa", "horizon"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number", "use 1")
        for name in ("lr", "lam"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a positive number, or null", "use null")


CONFIG = DessiLBIConfig
