"""OBS-Fisher: greedy elimination of units from every pair, each time with the best weights for those that stay.

"vo" and "mlp" pairs: with G the centred Gram matrix of the inputs of the second map (the sum over an image's tokens,
the mean over images), H = G + .01 mean diagonal, and A the mean of g g^T, g the gradient at the map's output under
labels drawn from the network's own answers, the unit P (a channel of every head that shares it) goes that has the
smallest tr((H^-1_PP)^-1 W_P^T A W_P). That is what its removal costs once the other columns of W are re-fitted; H^-1
and W are downdated after each. "qk" pairs: the same greedy without re-fitting. What removed channels take from a row of
logits is weighted by the gradient g_i of that row, Fisher information of rank one, so with s_ic = q_ic dL/dq_ic (the
softmax is blind to constants, so rows are centred of themselves) and M the sum of s_i s_i^T over rows and heads the
marginal error is M_uu + 2 sum over removed v of M_uv. The running maximum of a pair's marginal errors per MAC goes into
one list.

With `num_cuts` > 1 the network is repaired (spp.structure.repair) after each cut and measured anew; only the order of
removal is kept, and members are cut from the dense network. No labels are needed.
"""

from dataclasses import dataclass

from spp.methods.elimination.config import EliminationConfig


@dataclass(frozen=True, kw_only=True)
class OBSConfig(EliminationConfig):
    """Settings of the search and of the selection."""

    name: str = "obs"

    @property
    def num_revisions_of_texts(self) -> int:
        """Padding is in no sum."""
        return 1


CONFIG = OBSConfig
