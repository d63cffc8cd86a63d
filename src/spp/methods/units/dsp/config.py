"""DSP (differentiable subset pruning, TACL 2021): exactly K heads, by a relaxed top-K whose temperature falls.

As released (joint): one weight per head, xavier-uniform, float64. Each step adds Gumbel noise and draws K times by a
softmax of temperature tau without replacement; the sum of the draws gates the heads and adds up to K. tau falls
geometrically over the first two thirds of the steps. Adam moves the weights of the heads (linear decay), the network
trains along; in the end the K heads of the largest weights stay. `straight_through` gates with the hard choice instead,
without noise, and hands the gradient through.

As an option (`weights_first`; released: pipelined) the network trains first, for 3 epochs without gates, and then the
heads' weights alone, for one, in which temperature and step size fall; what trains after the choice is the finetuning.

Mended: the straight-through choice keeps exactly K heads also at ties and at K = n; the cool-down is a share of the
steps there are, so that it always ends; the final choice is drawn without noise.

Ours: K is the largest number whose heads the budget pays for; where heads differ in price (Swin) that depends on which
ones lead, and K follows them. The gate is the mask on the values of a head, biases included. Attention alone is pruned:
budgets below the cost of everything else cannot be reached.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import later, require
from spp.methods.method import MethodConfig


@dataclass(frozen=True, kw_only=True)
class DSPConfig(MethodConfig):
    """Settings of the search."""

    kinds: ClassVar[tuple[str, ...]] = ("budget",)

    name: str = "dsp"
    lr: float = 0.5
    """First step size of the heads' weights; it falls linearly to 0."""
    first_temperature: float = 1000.0
    """Temperature at the first step."""
    last_temperature: float = 1e-8
    """Temperature from the end of the cool-down on."""
    cooldown: float = 2 / 3
    """Share of the steps over which the temperature falls."""
    weights_first: float = later(0.0, neutral=0.0)
    """Share of the steps in which the network trains without gates, before the heads' weights train alone (pipelined;
    released: 0.75); 0: both train together (joint)."""
    straight_through: bool = False
    """Gate with the hard choice, without noise, and hand the gradient through."""
    released_quirks: bool = False
    """The straight-through choice drops heads that tie with the first one left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lr", "first_temperature", "last_temperature"):
            value = getattr(self, name)
            require(value > 0, name, value, "a positive number", f"use {getattr(type(self), name):g}")
        first = self.weights_first
        require(0 <= first < 1, "weights_first", first, "a number in [0, 1)", "use 0.75, or 0")
        require(0 < self.cooldown <= 1, "cooldown", self.cooldown, "(0, 1]", "use 0.667")

    @property
    def needs_heads(self) -> bool:
        return True


CONFIG = DSPConfig
