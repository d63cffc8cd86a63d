"""The kept weights that reproduce the dense outputs best, by conjugate gradients for all rows at once.

Row by row with kept columns K the new weights solve (H + d I)_KK (v - w)_K = H_KR w_R, where R is the rest. One product
(out, in) x (in, in) per iteration serves all rows; the preconditioner is the diagonal.
"""

import torch
from torch import Tensor

from spp.sparsity.curvature import Curvature

TOLERANCE = 1e-5
"""Of the largest gradient of a row on its kept weights, next to that before the update."""
MAX_ITERATIONS = 200


def solve_least_squares(
    weight: Tensor,
    mask: Tensor,
    curvature: Curvature,
    damping: float,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
    """The kept weights of the smallest loss.

    Args:
        weight: (out, in), of the type of the Gram matrix.
        mask: (out, in) bool, True where the weight stays.
        curvature: of the input.
        damping: of the change of the weights, as a fraction of the mean diagonal.
        tolerance: at which share of the gradient before it stops.
        max_iterations: where it stops in any case.

    Returns: (out, in), zeros where not mask.
    """
    gram, ridge = curvature.gram, damping * curvature.mean_diagonal
    step_scale = (gram.diagonal() + ridge).masked_fill(curvature.is_dead, 1.0)
    change = torch.zeros_like(weight)
    residual = ((weight * ~mask) @ gram) * mask
    limit = tolerance * residual.abs().amax(1, keepdim=True)
    direction = residual / step_scale
    product = (residual * direction).sum(1, keepdim=True)
    for _ in range(max_iterations):
        if bool((residual.abs().amax(1, keepdim=True) <= limit).all()):
            break
        image = (torch.addmm(ridge * direction, direction, gram)) * mask
        # A row that is solved has a direction of 0 and stays where it is.
        length = product / (direction * image).sum(1, keepdim=True).clamp(min=torch.finfo(gram.dtype).tiny)
        change += length * direction
        residual -= length * image
        preconditioned = residual / step_scale
        new_product = (residual * preconditioned).sum(1, keepdim=True)
        direction = preconditioned + new_product / product.clamp(min=torch.finfo(gram.dtype).tiny) * direction
        product = new_product
    return weight * mask + change
