"""Energy: a unit is worth what it adds to the output of its pair, in the mean square. It needs inputs, and no labels.

Of a "vo" or "mlp" unit that is, summed over its channels j, the mean of x_j^2 over all tokens times the squared norm of
the column of the second map that x_j meets; with centred=true the variance of x_j stands for the mean square, as in
FLAP (An et al., AAAI 2024), whose point is that a constant can be taken over by a bias. Of a "qk" unit it is the mean
of q_j^2 times that of k_j^2, what it adds to the logits where queries and keys are independent.

Sizes of different layers have nothing to do with each other, so the scores of every pair are standardised: its mean is
taken off, and it is divided by its standard deviation (FLAP's rule for one list over all layers). Costs then play no
part in the order. The weights and the masks stand still.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class EnergyConfig(RankingConfig):
    """Settings of the score and of the selection."""

    max_search_epochs: ClassVar[int | None] = 1
    """One pass over the training samples is more than the score needs to settle."""
    trains_weights: ClassVar[bool] = False

    name: str = "energy"
    centred: bool = False
    """The variance of what a unit puts out (FLAP's fluctuation); false: its mean square."""


CONFIG = EnergyConfig
