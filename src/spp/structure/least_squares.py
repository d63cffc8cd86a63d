"""Least squares in a stream of batches: only sums of products are kept, and each problem is one Cholesky at its end.

All are for the *change* of weights that stand already, with a ridge on that change: at the solution the squared error
of what was added is never larger than without the change.
"""

import torch
from torch import Tensor


class MapRefit:
    """The change of a linear map, of its weight (outputs, inputs) and of its bias.

    Args:
        num_inputs: inputs of the map, with a constant 1 for the bias where there is one.
        num_outputs: outputs.
        device: of what is added.
    """

    def __init__(self, num_inputs: int, num_outputs: int, device: torch.device) -> None:
        self._gram = no_sum(device, num_inputs, num_inputs)
        self._cross = no_sum(device, num_inputs, num_outputs)

    def add(self, inputs: Tensor, errors: Tensor) -> None:
        """Take in rows (n, num_inputs), and what is to be added to the outputs for them (n, num_outputs)."""
        self._gram += inputs.T @ inputs
        self._cross += inputs.T @ errors

    def change(self, ridge: float) -> Tensor:
        """The change (num_outputs, num_inputs); `ridge` as a share of the mean diagonal of the inputs' Gram matrix."""
        return solve_ridge(self._gram, self._cross, ridge).T


class ProductRefit:
    """The change T of one factor of products: errors_i ~ features_i T^T others_i^T, one T for all samples i.

    That is how the logits of a head change with its queries (others: its keys) or, transposed, with its keys. The
    normal equations are those of a Kronecker product, the sum of (others^T others) x (features^T features) over the
    samples, so their memory is (channels * features)^2 for each head and does not grow with the samples.

    Args:
        num_heads: problems that are solved side by side.
        num_channels: channels that the factor has: columns of `others`.
        num_features: columns of `features`.
        device: of what is added.
    """

    def __init__(self, num_heads: int, num_channels: int, num_features: int, device: torch.device) -> None:
        self._sizes = (num_channels, num_features)
        self._products = no_sum(device, num_heads, num_channels**2, num_features**2)
        self._cross = no_sum(device, num_heads, num_channels, num_features)

    def add(self, features: Tensor, others: Tensor, errors: Tensor) -> None:
        """Take in samples.

        Args:
            features: (samples, heads, n, num_features).
            others: (samples, heads, m, num_channels).
            errors: (samples, heads, n, m), what is to be added to the products.
        """
        squared_others = (others.mT @ others).flatten(2).transpose(0, 1)
        squared_features = (features.mT @ features).flatten(2).transpose(0, 1)
        self._products += squared_others.mT @ squared_features
        self._cross += (others.mT @ errors.mT @ features).sum(0)

    def add_seen(
        self, queries: Tensor, keys: Tensor, errors: Tensor, is_seen: Tensor, *, features_are_keys: bool
    ) -> None:
        """Take in samples of which a query sees some of the keys: each row of errors of those, up to a constant.

        Here keys are centred for every query over those that it sees, so that each query has a Gram matrix of its own,
        and the sums take as many times longer as there are queries.

        Args:
            queries: (samples, heads, n, a).
            keys: (samples, heads, m, b).
            errors: (samples, heads, n, m), what is to be added to the products.
            is_seen: bool (samples, n, m); a query that sees nothing is left out.
            features_are_keys: whether the keys are the features and the queries the others, or the other way round.
        """
        samples, rows = is_seen.any(2).nonzero(as_tuple=True)
        seen = is_seen.to(keys.dtype)
        counts = seen.sum(2)[samples, rows, None]
        for head in range(keys.shape[1]):
            x, y, error = queries[:, head], keys[:, head], errors[:, head] * seen
            x = x[samples, rows]
            means = (seen @ y)[samples, rows] / counts
            squares = (seen @ _squared(y))[samples, rows] - counts * _squared(means)
            products = (error @ y)[samples, rows] - error.sum(2)[samples, rows, None] * means
            if features_are_keys:
                self._products[head] += _squared(x).T @ squares
                self._cross[head] += x.T @ products
            else:
                self._products[head] += squares.T @ _squared(x)
                self._cross[head] += products.T @ x

    def change(self, ridge: float) -> Tensor:
        """T of every head, (heads, num_channels, num_features); `ridge` as in `MapRefit.change`."""
        channels, features = self._sizes
        changes = []
        for products, cross in zip(self._products, self._cross, strict=True):
            gram = products.view(channels, channels, features, features).transpose(1, 2)
            gram = gram.reshape(channels * features, channels * features)
            changes.append(solve_ridge(gram, cross.reshape(-1, 1), ridge).view(channels, features))
        return torch.stack(changes)


def _squared(rows: Tensor) -> Tensor:
    """The outer product of every row with itself, (..., a) -> (..., a^2)."""
    return (rows[..., :, None] * rows[..., None, :]).flatten(-2)


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """The solution of (gram + r I) x = cross, where r is `ridge` times the mean of the diagonal's entries above 0.

    Inputs that are always 0, as those that fill up a head, are no part of that mean, and get 0.
    """
    diagonal = gram.diagonal()
    is_used = diagonal > 0
    if not is_used.any():
        return torch.zeros_like(cross)
    damped = gram.clone()
    damped.diagonal().add_(ridge * diagonal[is_used].mean())
    return torch.cholesky_solve(cross, torch.linalg.cholesky(damped))


def no_sum(device: torch.device, *sizes: int) -> Tensor:
    """Zeros for a sum over many samples: in float64 where the device knows it."""
    return torch.zeros(sizes, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
