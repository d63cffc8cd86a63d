"""The drive by curvature: gradients of a second-order model of the loss at the dense network; see config.py."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import join, split, unit_costs
from spp.methods.devices import mean_over_devices
from spp.methods.sample_gradients import MaskPointWatch
from spp.structure.adapters.adapter import MaskPoint
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair

LARGEST_RATIO = 30.0
"""Bound on a unit's curvature per cost over the mean of all, which large ones come near to in their order: the steps of
the masks would not bear the tail of the units that no member can do without."""


class MaskCurvature:
    """Measures the diagonal F of the masks' Fisher information at the dense masks, and gives the masks F (m - 1).

    Args:
        masked: the network with its masks, which stand at 1 whenever a pass is watched, wherever they have moved to.
    """

    def __init__(self, masked: MaskedModel) -> None:
        self._masked = masked
        self._watch = MaskPointWatch(masked, masked.pairs, self._add)
        self._moved: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._num_passes = 0

    def attach(self) -> None:
        """Watch the next forward and backward pass, at the dense masks."""
        self._moved = {name: mask.detach().clone() for name, mask in self._masked.masks.items()}
        self._masked.set_masks({name: torch.ones_like(mask) for name, mask in self._moved.items()})
        self._watch.attach()

    @torch.no_grad()
    def set_gradients(self, *, is_measured: bool) -> None:
        """Put the masks back, with F (m - 1) as their gradients; with F itself where its scale is measured."""
        self._watch.detach()
        self._num_passes += 1
        self._masked.set_masks(self._moved)
        for name, seen in self._seen.items():
            seen = mean_over_devices(seen).cpu()
            self._sums[name] = self._sums[name] + seen if name in self._sums else seen
        self._seen = {}
        for name, curvature in self.curvature().items():
            mask = self._masked.masks[name]
            curvature = curvature.to(mask.device, mask.dtype)
            mask.grad = curvature if is_measured else curvature * (mask - 1)

    def curvature(self) -> dict[str, Tensor]:
        """F over the passes so far, its tail bounded; (size,) float64 by pair name."""
        costs = unit_costs(self._masked.pairs, "macs")
        worth = join(self._masked.pairs, self._sums) / self._num_passes / costs
        limit = LARGEST_RATIO * worth.mean().clamp(min=torch.finfo(worth.dtype).tiny)
        return split(self._masked.pairs, worth / (1 + worth / limit) * costs)

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"num_passes": self._num_passes, "sums": {name: sums.clone() for name, sums in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._num_passes = int(state["num_passes"])
        self._sums = {name: sums.cpu().clone() for name, sums in state["sums"].items()}

    def _add(self, pair: Pair, point: MaskPoint, products: Tensor) -> None:
        """Keep the mean over tokens of the squares of a mask's gradient; (size,) float64."""
        by_unit = point.gather(products.flatten(0, -2), pair).float()
        # The loss is a mean over the samples, so that each has only its share of it.
        self._seen[pair.name] = (by_unit * self._watch.num_samples).square().mean(0).double()
