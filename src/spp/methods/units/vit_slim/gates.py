"""The search of ViT-Slim; see config.py for what is mended and what is ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import split
from spp.methods.bundles import Bundles, take_gradients, write_masks
from spp.methods.devices import num_devices
from spp.methods.search import RankingSearch
from spp.methods.units.vit_slim.config import ViTSlimConfig
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair

RELEASED_LR = 5e-4
RELEASED_WEIGHT_DECAY = 1e-3


class ViTSlimSearch(RankingSearch):
    """Gates under L1, trained by an AdamW of their own next to the weights.

    Attributes:
        gates: the gates, (num_gates,) float64.
        strength: weight of each gate's L1, (num_gates,).
    """

    def __init__(self, config: ViTSlimConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.per_cost = not config.priced
        self.bundles = _bundles(config, self.pairs)
        self.is_mlp = torch.tensor([group.kind == "mlp" for group in self.bundles.groups])[self.bundles.group_of]
        self.strength = self._strength()
        self.gates = torch.ones(len(self.bundles), dtype=torch.float64)
        self.optimizer = gate_optimizer(config, self.gates, 1.0, num_steps)
        self._power = torch.cat(
            [torch.full((pair.size,), 2.0 if config.tied and pair.kind == "qk" else 1.0) for pair in self.pairs]
        ).double()

    def trains(self, name: str) -> bool:
        return not self.config.freeze_weights or "norm" in name

    def after_backward(self) -> None:
        gates = self.bundles.expand(self.gates)
        chain = self._power * gates ** (self._power - 1)
        gradient = self.bundles.reduce(take_gradients(self.masks) * chain)
        is_free = self.strength > 0
        # Asked for here: the processes find each other only after the search is built.
        strength = self.strength / num_devices() if self.config.released_quirks else self.strength
        self.gates.grad = torch.where(is_free, gradient + strength * self.gates.sign(), 0.0)
        self.optimizer.step()
        self.gates[~is_free] = 1.0
        write_masks(self.masked, self.bundles.expand(self.gates) ** self._power)
        self.num_steps_taken += 1

    def scores(self) -> dict[str, Tensor]:
        """|gate|; a tied gate's worth is shared out over its units by their costs, so that per cost they are level."""
        worth = self.gates if self.config.released_quirks else self.gates.abs()
        shares = torch.ones(len(self._power), dtype=torch.float64)
        if self.per_cost:
            costs = torch.repeat_interleave(
                torch.tensor([pair.macs_per_unit for pair in self.pairs], dtype=torch.float64),
                torch.tensor([pair.size for pair in self.pairs]),
            )
            shares = costs / self.bundles.expand(self.bundles.reduce(costs))
        return split(self.pairs, self.bundles.expand(worth) * shares)

    def metrics(self) -> dict[str, float]:
        """Mean |gate| of each family."""
        families = {"attention": ~self.is_mlp, "mlp": self.is_mlp}
        return {f"gate_{name}": float(self.gates[of].abs().mean()) for name, of in families.items() if of.any()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "gates": self.gates.clone(),
            "optimizer": self.optimizer.state_dict(),
            "num_steps_taken": self.num_steps_taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gates.copy_(state["gates"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.num_steps_taken = int(state["num_steps_taken"])

    def _strength(self) -> Tensor:
        config = self.config
        if config.priced:
            costs = self.bundles.costs("macs")
            like = costs[~self.is_mlp] if (~self.is_mlp).any() else costs
            return config.w1 * costs / like.mean()
        return torch.where(self.is_mlp, config.w2, config.w1).double()


def _bundles(config: ViTSlimConfig, pairs: Sequence[Pair]) -> Bundles:
    """What has one gate."""
    if config.unit == "head":
        return Bundles.heads(pairs, with_mlp=True)
    return Bundles.tied(pairs) if config.tied else Bundles.single(pairs)


def gate_optimizer(config: ViTSlimConfig, gates: Tensor, start: float, num_steps: int) -> torch.optim.AdamW:
    """AdamW on `gates`; the steps of the search, however few, add up to twice the way from `start` to 0."""
    return torch.optim.AdamW(
        [gates],
        lr=config.lr or max(RELEASED_LR, 2 * start / max(1, num_steps)),
        weight_decay=RELEASED_WEIGHT_DECAY if config.released_quirks else 0.0,
    )
