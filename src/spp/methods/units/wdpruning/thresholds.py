"""Learned scores and thresholds; see config.py for what is mended and what is ours."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spp.dynamics.budget import Budget, dense_total
from spp.methods.bundles import Bundles, cosine, remaining_share, take_gradients, write_masks
from spp.methods.search import BudgetSearch
from spp.methods.units.wdpruning.config import WDPruningConfig
from spp.methods.units.wdpruning.depth import TrainedAlong, shorten
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair

FIRST_THRESHOLD = 10.0
RELEASED_LR = 0.0025
RELEASED_MULTIPLIER_LR = 10.0
SHORT_LR = 20.0
"""Sum of the steps of a threshold in a short search, without the cosine: twice its way."""
SHORT_MULTIPLIER_LR = 40000.0
"""The same of a multiplier: a third of it suffices against the slope of the sigmoid at the first threshold."""
LAST_THRESHOLD_LR = 1e-5
LAST_MULTIPLIER_LR = 1e-5
LARGEST_LIFT = 100.0
NUM_HALVINGS = 60
RELEASED_SCORE_LR = 1e-3
RELEASED_SCORE_DECAY = 0.05
RELEASED_ROUNDING = 16
RELEASED_EPS = 1e-5
RELEASED_FROZEN = ("cls_token", "pos_embed")


class WDPruningSearch(BudgetSearch):
    """Learned scores and thresholds with straight-through masks.

    Attributes:
        scores: (num_bundles,) float64.
        thresholds: (num_groups,) float64.
        multipliers: l1 and l2.
        target: R, the share of the prunable cost that the budget leaves.
    """

    def __init__(self, config: WDPruningConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        self._whole: TrainedAlong | None = None
        if config.depth is not None and not config.exits:
            masked, budget, self._whole = _shortened(masked, budget, config.depth)
        super().__init__(masked, num_steps, budget)
        self.config = config
        self.bundles = bundles_of(config, self.pairs)
        self.target = self.bundles.keep_share(budget, config.min_units)
        self.scores = torch.zeros(len(self.bundles), dtype=torch.float64)
        self.thresholds = torch.full((len(self.bundles.groups),), FIRST_THRESHOLD, dtype=torch.float64)
        self.multipliers = torch.zeros(2, dtype=torch.float64)
        steps = max(num_steps, 1)
        lr = config.lr or max(RELEASED_LR, SHORT_LR / steps)
        score_lr = config.score_lr or (RELEASED_SCORE_LR if config.released_quirks else lr)
        decay = RELEASED_SCORE_DECAY if config.released_quirks else 0.0
        self._first_lrs = [lr, score_lr]
        self._multiplier_lr = config.multiplier_lr or max(RELEASED_MULTIPLIER_LR, SHORT_MULTIPLIER_LR / steps)
        self._group_costs = self.bundles.group_costs(budget.kind)
        self._optimizer = torch.optim.AdamW(
            [{"params": [self.thresholds], "weight_decay": 0.0}, {"params": [self.scores], "weight_decay": decay}]
        )
        self._ascent = torch.optim.AdamW([self.multipliers], weight_decay=0.0, maximize=True)
        self._chosen = torch.ones_like(self.scores)
        self._norms: list[tuple[nn.LayerNorm, float]] = []

    def before_forward(self) -> None:
        if self.config.released_quirks:
            norms = [module for module in self.masked.model.modules() if isinstance(module, nn.LayerNorm)]
            self._norms = [(norm, norm.eps) for norm in norms]
            for norm in norms:
                norm.eps = RELEASED_EPS
        self._chosen = self.chosen()
        write_masks(self.masked, self.bundles.expand(self._chosen))

    def trains(self, name: str) -> bool:
        return not (self.config.freeze_tokens and name.rpartition(".")[2] in RELEASED_FROZEN)

    def auxiliary_outputs(self) -> Sequence[Tensor]:
        return () if self._whole is None else (self._whole.take_outputs(),)

    def after_backward(self) -> None:
        for norm, eps in self._norms:
            norm.eps = eps
        self._norms = []
        gradient = self.bundles.reduce(take_gradients(self.masks))
        if self._moves():
            self._move(gradient)
        self.num_steps_taken += 1

    def _moves(self) -> bool:
        """Whether scores and thresholds move in the running step."""
        return True

    def _move(self, gradient: Tensor) -> None:
        share, share_gradient = self._share()
        excess = share - self.target
        pull = float(self.multipliers[0] + 2 * self.multipliers[1] * excess) if excess > 0 else 0.0
        task = torch.zeros_like(self.thresholds).index_add(0, self.bundles.group_of, gradient * self._chosen)
        self.scores.grad = gradient
        self.thresholds.grad = task + pull * share_gradient
        self.multipliers.grad = torch.tensor([excess, excess**2] if excess > 0 else [0.0, 0.0], dtype=torch.float64)
        self._set_step_sizes()
        self._optimizer.step()
        self._ascent.step()
        if not self.config.released_quirks:
            self._lift()

    def counts(self) -> Tensor:
        """Bundles that every group keeps in the forward pass, (num_groups,)."""
        sizes = self.bundles.sizes
        counts = torch.ceil(torch.sigmoid(self.thresholds) * sizes)
        if not self.config.released_quirks:
            return counts
        rounded = (torch.floor(counts / RELEASED_ROUNDING + 0.5) * RELEASED_ROUNDING).clamp(min=RELEASED_ROUNDING)
        is_rounded = sizes % RELEASED_ROUNDING == 0
        if self.config.unit == "head":
            is_rounded &= torch.tensor([group.kind == "mlp" for group in self.bundles.groups])
        return torch.where(is_rounded, torch.minimum(rounded, sizes), counts)

    def chosen(self) -> Tensor:
        """The 0/1 masks of the forward pass, (num_bundles,)."""
        return self.bundles.top(self.scores, self.counts())

    def kept_share(self) -> float:
        """e: the share of the prunable cost at the current thresholds."""
        return self._share()[0]

    def final_masks(self) -> dict[str, Tensor]:
        key = self.bundles.shift_key(self.scores, self.thresholds)
        return self.bundles.fill(key, self.scores, self.budget, self.config.min_units)

    def final_network(self) -> tuple[nn.Module, dict[str, Any]]:
        if self._whole is None:
            return super().final_network()
        self._whole.take_off()
        return self.masked.model, {"depth": self.config.depth}

    def metrics(self) -> dict[str, float]:
        linear, quadratic = self.multipliers.tolist()
        return {"kept_share": self.kept_share(), "multiplier_1": linear, "multiplier_2": quadratic}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "scores": self.scores.clone(),
            "thresholds": self.thresholds.clone(),
            "multipliers": self.multipliers.clone(),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "ascent": copy.deepcopy(self._ascent.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self.scores.copy_(state["scores"])
        self.thresholds.copy_(state["thresholds"])
        self.multipliers.copy_(state["multipliers"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._ascent.load_state_dict(state["ascent"])

    def _lift(self) -> None:
        """Raise all thresholds together until the kept share is the target, should it have fallen below."""
        low, high = 0.0, LARGEST_LIFT
        if self._share_at(low) >= self.target:
            return
        for _ in range(NUM_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._share_at(middle) <= self.target else (low, middle)
        self.thresholds += low

    def _share_at(self, lift: float) -> float:
        ratios = torch.sigmoid(self.thresholds + lift)
        return float(remaining_share(ratios, self.bundles.sizes, self._group_costs))

    def _share(self) -> tuple[float, Tensor]:
        """e and its gradient in the thresholds."""
        thresholds = self.thresholds.detach().requires_grad_()
        with torch.enable_grad():
            share = remaining_share(torch.sigmoid(thresholds), self.bundles.sizes, self._group_costs)
            (gradient,) = torch.autograd.grad(share, thresholds)
        return share.item(), gradient

    def _set_step_sizes(self) -> None:
        progress = self.num_steps_taken / self.num_steps
        for group, first in zip(self._optimizer.param_groups, self._first_lrs, strict=True):
            group["lr"] = cosine(first, LAST_THRESHOLD_LR, progress)
        self._ascent.param_groups[0]["lr"] = cosine(self._multiplier_lr, LAST_MULTIPLIER_LR, progress)


def bundles_of(config: WDPruningConfig, pairs: list[Pair]) -> Bundles:
    """What is kept or dropped together: units, or whole heads.

    Raises:
        ValueError: heads are asked of pairs that share their units.
    """
    return Bundles.heads(pairs, with_mlp=True) if config.unit == "head" else Bundles.single(pairs)


def _shortened(masked: MaskedModel, budget: Budget, depth: int) -> tuple[MaskedModel, Budget, TrainedAlong]:
    """The first blocks with masks of their own, the budget in absolute terms, and the rest of the network."""
    size = budget.value * dense_total(masked.pairs, budget.kind) if budget.value <= 1 else budget.value
    model, per_head = masked.model, any(pair.per_head for pair in masked.pairs)
    rest = shorten(model, depth)
    short = MaskedModel(model, find_pairs(model, per_head=per_head))
    return short, Budget(budget.kind, size), TrainedAlong(model, rest)
