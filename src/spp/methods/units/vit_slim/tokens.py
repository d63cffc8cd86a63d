"""The search of ViT-Slim with gates on tokens besides; see config.py for what is mended."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.methods.bundles import take_gradients
from spp.methods.devices import num_devices
from spp.methods.units.vit_slim.config import ViTSlimConfig
from spp.methods.units.vit_slim.gates import ViTSlimSearch, gate_optimizer
from spp.structure.masked import MaskedModel
from spp.structure.tokens import Kept, token_points

START = 3.0


class ViTSlimTokenSearch(ViTSlimSearch):
    """Gates under L1 on units, and on the patches that each block sees.

    Attributes:
        zeta: the gates of the patches before the tanh, (num_blocks, num_patches) float64.
    """

    def __init__(self, config: ViTSlimConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(config, masked, num_steps)
        self.points = token_points(masked.model)
        if not self.points:
            raise ValueError(
                f"method.tokens: {config.tokens:g} is not allowed with this {type(masked.model).__name__}, which needs"
                " all its tokens; allowed: 1, or a plain ViT or DeiT of one image size; use method.tokens=1"
            )
        self.token_masks = masked.mask_tokens()
        self.zeta = torch.full((len(self.points), self.points[0].num_patches), START, dtype=torch.float64)
        self.token_optimizer = gate_optimizer(config, self.zeta, START, num_steps)
        self._write_token_masks()

    def after_backward(self) -> None:
        super().after_backward()
        weight = self.config.token_weight / (num_devices() if self.config.released_quirks else 1)
        gates = self.zeta.tanh()
        gradient = take_gradients(self.token_masks).view_as(gates) + weight * gates.sign()
        self.zeta.grad = gradient * (1 - gates**2)
        self.token_optimizer.step()
        self._write_token_masks()

    def kept_tokens(self) -> Kept:
        gates = self.zeta.tanh()
        kept = select_tokens(gates if self.config.released_quirks else gates.abs(), self.config.tokens)
        return {
            point.block: [*range(point.num_prefix), *(point.num_prefix + row.nonzero().flatten()).tolist()]
            for point, row in zip(self.points, kept, strict=True)
        }

    def metrics(self) -> dict[str, float]:
        return {**super().metrics(), "gate_tokens": float(self.zeta.tanh().abs().mean())}

    def state_dict(self) -> dict[str, Any]:
        tokens = {"zeta": self.zeta.clone(), "token_optimizer": self.token_optimizer.state_dict()}
        return {**super().state_dict(), **tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.zeta.copy_(state["zeta"])
        self.token_optimizer.load_state_dict(dict(state["token_optimizer"]))

    @torch.no_grad()
    def _write_token_masks(self) -> None:
        for mask, gates in zip(self.token_masks.values(), self.zeta.tanh(), strict=True):
            mask.copy_(gates)


def select_tokens(worth: Tensor, share: float) -> Tensor:
    """The best `share` of all blocks' patches in one list, and with each what it needs to get there.

    A patch that a block keeps stays in all blocks before it. The last block's best one always stays: the mean over
    no patch is none. So more than `share` may stay. Of equal ones those of the first blocks stay.

    Args:
        worth: (num_blocks, num_patches).
        share: in (0, 1].

    Returns: bool, of the shape of `worth`.
    """
    best = torch.argsort(worth.flatten(), descending=True, stable=True)[: max(1, round(share * worth.numel()))]
    kept = torch.zeros(worth.numel(), dtype=torch.int64).index_fill_(0, best, 1).view_as(worth)
    kept[-1, worth[-1].argmax()] = 1
    return kept.flip(0).cummax(0).values.flip(0).bool()
