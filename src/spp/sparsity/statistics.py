"""What one-shot pruning knows of an input: fp32 sums over calibration tokens, for all linears that read it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from spp.config import require

NEEDS = ("norms", "gram", "batches")
"""Statistics there are: the L2 norm of every feature, the Gram matrix X^T X, and the norms of every mini-batch."""
_NUM_STRIPS = 8
"""Strips of rows in which the lower half of the Gram matrix is added up: 9/16 of the multiplications."""
_MIN_STRIP = 128
"""Rows below which a strip is too thin for a matrix product to run at full speed."""
_TOKENS_AT_ONCE = 4096
"""So that the fp32 copy of a mini-batch stays small next to the Gram matrix."""


class InputStats:
    """Sums over the tokens of one input.

    Args:
        num_features: width of the input.
        needs: which of NEEDS to keep.
        device: where the sums lie; None: where the first mini-batch does.

    Raises:
        ValueError: something unknown is needed.
    """

    def __init__(
        self,
        num_features: int,
        needs: Iterable[str] = ("norms", "gram"),
        device: torch.device | str | None = None,
    ) -> None:
        self.num_features, self.needs, self.num_tokens = num_features, frozenset(needs), 0
        for need in self.needs:
            require(need in NEEDS, "needs", need, ", ".join(NEEDS), "leave it out")
        self._device = None if device is None else torch.device(device)
        self._gram: Tensor | None = None
        self._squares: Tensor | None = None
        self._batches: list[Tensor] = []
        self._is_mirrored = True

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Add one mini-batch.

        Args:
            x: (..., num_features), any floating type; all but the last dimension are tokens.

        Raises:
            ValueError: another number of features.
        """
        if x.shape[-1] != self.num_features:
            raise ValueError(
                f"x: {x.shape[-1]} features are not allowed; allowed: {self.num_features}; give it the input it is for"
            )
        tokens = x.detach().reshape(-1, self.num_features)
        self._device = self._device or tokens.device
        squares = torch.zeros(self.num_features, device=self._device)
        for part in torch.split(tokens, _TOKENS_AT_ONCE):
            part = part.to(self._device, torch.float32)
            if "gram" in self.needs:
                self._add_gram(part)
            if self.needs != {"gram"}:
                squares += part.square().sum(0)
        self.num_tokens += len(tokens)
        if self.needs & {"norms", "batches"}:
            self._squares = squares if self._squares is None else self._squares + squares
        if "batches" in self.needs:
            self._batches.append(squares.sqrt())

    def _add_gram(self, x: Tensor) -> None:
        if self._gram is None:
            self._gram = torch.zeros(self.num_features, self.num_features, device=self._device)
        for rows in _strips(self.num_features):
            self._gram[rows, : rows.stop].addmm_(x[:, rows].T, x[:, : rows.stop])
        self._is_mirrored = False

    @property
    def gram(self) -> Tensor:
        """X^T X, (num_features, num_features) fp32.

        Raises:
            ValueError: it was not kept.
        """
        if self._gram is None:
            raise self._missing("gram")
        if not self._is_mirrored:
            for rows in _strips(self.num_features):
                self._gram[: rows.start, rows] = self._gram[rows, : rows.start].T
            self._is_mirrored = True
        return self._gram

    @property
    def norms(self) -> Tensor:
        """L2 norm of every feature over all tokens, (num_features,) fp32.

        Raises:
            ValueError: it was not kept.
        """
        if self._squares is not None:
            return self._squares.sqrt()
        if self._gram is not None:
            return self._gram.diagonal().sqrt()
        raise self._missing("norms")

    @property
    def batch_norms(self) -> Tensor:
        """L2 norm of every feature over the tokens of each mini-batch, (num_batches, num_features) fp32.

        Raises:
            ValueError: they were not kept.
        """
        if not self._batches:
            raise self._missing("batches")
        return torch.stack(self._batches)

    def _missing(self, need: str) -> ValueError:
        return ValueError(
            f"stats: {need} is not there; allowed: what its needs name ({', '.join(sorted(self.needs)) or 'nothing'}), "
            f"after a first mini-batch; use InputStats({self.num_features}, needs=['{need}']) and add to it"
        )

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {
            "num_tokens": self.num_tokens,
            "gram": None if self._gram is None else self.gram,
            "squares": self._squares,
            "batches": list(self._batches),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.num_tokens, self._gram, self._squares = state["num_tokens"], state["gram"], state["squares"]
        self._batches = list(state["batches"])


def _strips(num_features: int) -> list[slice]:
    height = max(_MIN_STRIP, -(-num_features // _NUM_STRIPS))
    return [slice(start, min(start + height, num_features)) for start in range(0, num_features, height)]
