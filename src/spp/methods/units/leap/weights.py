"""Masks on the single weights of the linear maps that hold units."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spp.structure.find import unit_weights
from spp.structure.pair import Pair


@dataclass(frozen=True, eq=False)
class Part:
    """The weights of one linear map that belong to the units of one pair, as a matrix with the units' slices as rows.

    Attributes:
        name: dotted name of the parameter.
        parameter: the parameter.
        dim: its dimension along which the units lie.
        index: its slices, (num_rows,), unit after unit; of tiles larger than a weight in ascending order.
        pair: number of the pair.
        num_units: units of that pair.
        tile: rows and columns, of this matrix, that are kept or dropped together.
    """

    name: str
    parameter: nn.Parameter
    dim: int
    index: Tensor
    pair: int
    num_units: int
    tile: tuple[int, int] = (1, 1)

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.index) * self.parameter.shape[1 - self.dim]

    @property
    def tile_size(self) -> int:
        """Number of weights in a tile."""
        return self.tile[0] * self.tile[1]

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return self.size // self.tile_size

    def sum_of_tiles(self, values: Tensor) -> Tensor:
        """The sum in every tile of (num_rows, columns): (rows of tiles, columns of tiles)."""
        (high, wide), (rows, columns) = self.tile, values.shape
        return values.reshape(rows // high, high, columns // wide, wide).sum((1, 3))

    def tiles_of(self, values: Tensor) -> Tensor:
        """The value of its tile for every weight, the transpose of `sum_of_tiles`."""
        return values.repeat_interleave(self.tile[0], 0).repeat_interleave(self.tile[1], 1)

    def gather(self, values: Tensor) -> Tensor:
        """What this part has of a tensor of the parameter's shape, (num_rows, columns)."""
        return values.index_select(self.dim, self.index.to(values.device)).movedim(self.dim, 0)

    def scatter_(self, values: Tensor, part: Tensor) -> None:
        """Put `part` into a tensor of the parameter's shape."""
        values.index_copy_(self.dim, self.index.to(values.device), part.movedim(0, self.dim).to(values))

    def rows_of(self, units: Tensor) -> Tensor:
        """The value of its unit for every row, (num_rows, 1)."""
        return units.to(self.index.device).repeat_interleave(len(self.index) // self.num_units)[:, None]


ROW = (1, 0)
"""Tiles of the shape of a row of a parameter, whatever its width."""


def find_parts(model: nn.Module, pairs: Sequence[Pair], tile: tuple[int, int] = (1, 1)) -> list[Part]:
    """The weight matrices of all units; biases are left alone.

    Args:
        model: that the pairs are of.
        pairs: whose units.
        tile: rows and columns of the parameter that are kept or dropped together; ROW: each of its rows.

    Raises:
        ValueError: a matrix is no whole number of tiles high or wide.
    """
    parts = []
    for number, pair in enumerate(pairs):
        for w in unit_weights(model, pair):
            if w.parameter.ndim != 2:
                continue
            index = w.index.flatten().to(w.parameter.device)
            if tile != (1, 1):
                index = index.sort().values  # tiles are of neighbours in the parameter
            sides = (
                len(index),
                w.parameter.shape[1 - w.dim],
            )  # of the part: units, and what they are mapped from or to
            shape = (1, w.parameter.shape[1] if w.dim == 0 else len(index)) if tile == ROW else tile
            own = shape if w.dim == 0 else shape[::-1]
            if sides[0] % own[0] or sides[1] % own[1]:
                raise ValueError(
                    f"method.granularity: tiles of {tile[0]} x {tile[1]} do not fill {w.name}, of which {sides[0]} x "
                    f"{sides[1]} weights are those of units; allowed: whole tiles; use unstructured or row"
                )
            parts.append(Part(w.name, w.parameter, w.dim, index, number, pair.size, own))
    return parts


class WeightMasks:
    """Masks the weights for the time of a step.

    Args:
        parts: disjoint parts of the parameters.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._dense: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    @torch.no_grad()
    def apply(self, masks: Sequence[Tensor]) -> None:
        """Multiply the weights by the masks of their parts."""
        self._masks = self.joined(masks)
        for part in self.parts:
            if part.name not in self._dense:
                self._dense[part.name] = part.parameter.detach().clone()
                part.parameter.mul_(self._masks[part.name])

    @torch.no_grad()
    def undo(self) -> list[Tensor]:
        """Restore the weights and give them the gradient through their masks; returns the masks' gradients by part."""
        gradients = []
        for part in self.parts:
            gradient = part.parameter.grad
            full = torch.zeros_like(part.parameter) if gradient is None else gradient * self._dense[part.name]
            gradients.append(part.gather(full))
        for part in self.parts:
            if part.name in self._dense:
                part.parameter.copy_(self._dense.pop(part.name))
                if part.parameter.grad is not None:
                    part.parameter.grad.mul_(self._masks[part.name])
        self._masks = {}
        return gradients

    def joined(self, masks: Sequence[Tensor]) -> dict[str, Tensor]:
        """The masks of the parts as one mask per parameter, by name; 1 where no part lies."""
        full: dict[str, Tensor] = {}
        for part, mask in zip(self.parts, masks, strict=True):
            part.scatter_(full.setdefault(part.name, torch.ones_like(part.parameter.detach())), mask)
        return full


def best(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """1 for the `count` largest scores, of the rows `among` (num_rows, 1) bool if given, else 0; shape of `scores`."""
    if among is not None:
        scores = scores.masked_fill(~among, float("-inf"))
    elif count == scores.numel():
        return torch.ones_like(scores)
    chosen = torch.zeros_like(scores).flatten()
    chosen[scores.flatten().topk(count, sorted=False).indices] = 1.0
    return chosen.view_as(scores)
