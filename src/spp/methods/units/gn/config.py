"""Joint Gauss-Newton: which units together are missed least, by a second-order model of the loss over all masks.

At the masks 1 the expected loss rises by d^T F d / 2 for a change d of the masks, with F = J^T J / N, where row n of J
holds the gradients of sample n's loss by all masks, for a label drawn from the network's own answer: no labels are
needed. Units are removed one after the other, always the one with the smallest rise of the removed set's d^T F d per
MAC, F_uu + 2 sum over removed v of F_uv. With `num_cuts` > 1 F is measured anew after each cut.
"""

from dataclasses import dataclass

from spp.methods.iterated_config import IteratedConfig


@dataclass(frozen=True, kw_only=True)
class GNConfig(IteratedConfig):
    """Settings of the search and of the selection."""

    name: str = "gn"


CONFIG = GNConfig
