"""What becomes of the kept weights once the mask is known."""

from torch import Tensor

from spp.config import require
from spp.sparsity.least_squares import solve_least_squares
from spp.sparsity.problem import PreparedInput
from spp.sparsity.sweep import update_in_sweep


def update_kept(weight: Tensor, mask: Tensor, known: PreparedInput, how: str) -> Tensor:
    """The weights under a mask, moved so that the outputs on the calibration tokens stay close to the dense ones.

    Args:
        weight: (out, in), of the type of the input's statistics.
        mask: (out, in) bool, True where the weight stays.
        known: of the input, in the same order.
        how: obs, SparseGPT's sweep with this mask; or least_squares, the smallest loss. Both use `known.damping`.

    Returns: (out, in), zeros where not mask.
    """
    require(how in ("obs", "least_squares"), "how", how, "obs, least_squares", "use least_squares")
    if how == "obs":
        return update_in_sweep(weight, mask, known.curvature.inverse_factor)
    return solve_least_squares(weight, mask, known.curvature, known.damping)
