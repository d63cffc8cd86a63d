"""Greedy elimination of units from one pair: in which order, and what each removal adds to the error."""

import torch
from torch import Tensor


def eliminate_refitted(gram: Tensor, weighted: Tensor, groups: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Elimination of input channels of a map, the weights of the others being re-fitted after each.

    Args:
        gram: G, centred Gram matrix of the inputs, (channels, channels).
        weighted: W^T A W, the map's weight on both sides of the output's Fisher information, (channels, channels).
        groups: int64, (units, channels of a unit): units go as a whole.
        ridge: share of G's mean diagonal that is added to its diagonal.

    Returns:
        Numbers of the units, the first to go first, and their marginal errors in that order.
    """
    channels = groups.flatten()
    num_units, per_unit = groups.shape
    # Unit after unit, so that a unit's block is a block of the matrix.
    gram, weighted = (matrix[channels][:, channels].double() for matrix in (gram, weighted))
    diagonal = gram.diagonal()
    damping = ridge * diagonal[diagonal > 0].mean() if bool((diagonal > 0).any()) else torch.ones(()).to(gram)
    inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram)).to(gram))
    is_left = torch.ones(num_units, dtype=torch.bool, device=gram.device)
    order, errors = [], []
    for _ in range(num_units):
        own_inverse, own_weighted = _blocks(inverse, per_unit), _blocks(weighted, per_unit)
        own_inverse[~is_left] = torch.eye(per_unit).to(gram)
        rise = torch.linalg.solve(own_inverse, own_weighted).diagonal(dim1=1, dim2=2).sum(1)
        unit = int(torch.where(is_left, rise, torch.inf).argmin())
        order.append(unit)
        errors.append(rise[unit])
        is_left[unit] = False
        rows = slice(unit * per_unit, (unit + 1) * per_unit)
        # W_P E is what the other columns take over.
        taken_over = torch.linalg.solve(inverse[rows, rows], inverse[rows])
        crossed = weighted[:, rows] @ taken_over
        weighted = weighted - crossed - crossed.T + taken_over.T @ weighted[rows, rows] @ taken_over
        inverse = inverse - inverse[:, rows] @ taken_over
    return torch.tensor(order), torch.stack(errors).cpu()


def eliminate_plain(products: Tensor) -> tuple[Tensor, Tensor]:
    """Elimination by the quadratic form of the removed units, nothing being re-fitted.

    Args:
        products: M, (units, units): the error of a removed set is the sum of its entries.

    Returns:
        As `eliminate_refitted`.
    """
    products = products.double()
    rise = products.diagonal().clone()
    is_left = torch.ones(len(products), dtype=torch.bool, device=products.device)
    order, errors = [], []
    for _ in range(len(products)):
        unit = int(torch.where(is_left, rise, torch.inf).argmin())
        order.append(unit)
        errors.append(rise[unit])
        is_left[unit] = False
        rise = rise + 2 * products[unit]
    return torch.tensor(order), torch.stack(errors).cpu()


def _blocks(matrix: Tensor, size: int) -> Tensor:
    """The blocks on the diagonal, (number of them, size, size)."""
    number = len(matrix) // size
    return matrix.view(number, size, number, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
