"""The search of UPop; see config.py for what is mended and what is ours."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spp.dynamics.budget import Budget, join
from spp.dynamics.order import rank_within
from spp.methods.bundles import Bundles, take_gradients, write_masks
from spp.methods.method import Method
from spp.methods.search import BudgetSearch, SearchRequest
from spp.methods.units.upop.config import UPopConfig
from spp.structure.find import find_pairs, unit_weights
from spp.structure.masked import MaskedModel

RELEASED_ATTENTION_WEIGHT = 12.0


class UPopSearch(BudgetSearch):
    """Progressive pruning by the accumulated signed gradient.

    Attributes:
        accumulated: sum of the gradients of every mask entry, (num_bundles,) float64.
        share_removed: p, the share of the prunable cost that goes.
        interval: steps between two choices.
    """

    def __init__(self, config: UPopConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(masked, num_steps, budget)
        self.config = config
        self.bundles = Bundles.tied(self.pairs) if config.tied else Bundles.single(self.pairs)
        self.accumulated = torch.zeros(len(self.bundles), dtype=torch.float64)
        self.alpha = torch.ones(len(self.bundles), dtype=torch.float64)
        self.share_removed = 1 - self.bundles.keep_share(budget, config.min_units)
        self.interval = config.interval or max(1, round(num_steps / max(1.0, 100 * self.share_removed)))
        # The tied mask multiplies the queries and the keys; behind the first maps ours does, too, else their product.
        is_squared = config.tied and not config.masks_first_maps
        self._power = torch.cat(
            [torch.full((pair.size,), 2.0 if is_squared and pair.kind == "qk" else 1.0) for pair in self.pairs]
        ).double()

    def after_backward(self) -> None:
        alpha = self.bundles.expand(self.alpha)
        chain = self._power * alpha ** (self._power - 1)
        self.accumulated += self.bundles.reduce(take_gradients(self.masks) * chain)
        step = self.num_steps_taken
        is_last = step == self.num_steps - 1
        if (step > 0 and step % self.interval == 0) or is_last:
            self._set_alpha(self.progress(step), is_last)
        self.num_steps_taken += 1

    def progress(self, step: int) -> float:
        """Share of the way to the budget that the choice at `step` goes: 1 at the last one."""
        return math.sin(math.pi * (step + 1) / (2 * self.num_steps))

    def standardised(self) -> Tensor:
        """The accumulated gradients with mean 0 and deviation 1 in each family, (num_bundles,)."""
        is_mlp = torch.tensor([group.kind == "mlp" for group in self.bundles.groups])[self.bundles.group_of]
        scores = torch.zeros_like(self.accumulated)
        for family in (is_mlp, ~is_mlp):
            values = self.accumulated[family]
            if len(values) > 1 and float(values.std()) > 0:
                scores[family] = (values - values.mean()) / values.std()
        return scores

    def pruned(self, share: float) -> Tensor:
        """Which entries to prune so that `share` of the prunable cost goes, (num_bundles,) bool.

        Largest gradient first, up to the entry at which the cumulative cost is nearest to the wanted one; the
        `min_units` smallest of every module stay.
        """
        scores, weights = self.standardised(), self.weights()
        order = torch.argsort(scores, descending=True, stable=True)
        nearest = int((weights[order].cumsum(0) - share * weights.sum()).abs().argmin())
        ascending = order.flip(0)
        best = torch.zeros_like(order, dtype=torch.bool)
        best[ascending[rank_within(self.bundles.group_of[ascending]) < self.config.min_units]] = True
        return (scores > scores[order[nearest]]) & ~best

    def weights(self) -> Tensor:
        """What pruning one entry saves, (num_bundles,)."""
        if not self.config.released_quirks:
            return self.bundles.costs(self.budget.kind)
        per_group = [1.0 if group.kind == "mlp" else RELEASED_ATTENTION_WEIGHT for group in self.bundles.groups]
        if not self.config.tied:
            per_group = [weight if weight == 1 else weight / 2 for weight in per_group]
        return torch.tensor(per_group, dtype=torch.float64)[self.bundles.group_of]

    def final_masks(self) -> dict[str, Tensor]:
        scores = self.standardised()
        return self.bundles.fill(scores, torch.zeros_like(scores), self.budget, self.config.min_units)

    def metrics(self) -> dict[str, float]:
        costs = self.bundles.costs(self.budget.kind)
        return {"kept_share": float((costs * (self.alpha == 1)).sum() / costs.sum())}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "accumulated": self.accumulated.clone(),
            "alpha": self.alpha.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self.accumulated.copy_(state["accumulated"])
        self.alpha.copy_(state["alpha"])

    def _set_alpha(self, progress: float, is_last: bool) -> None:
        if is_last:
            self.alpha = (self.bundles.reduce(join(self.pairs, self.final_masks())) > 0).double()
        else:
            self.alpha = torch.where(self.pruned(progress * self.share_removed), 1 - progress, 1.0).double()
        write_masks(self.masked, self.bundles.expand(self.alpha) ** self._power)


@torch.no_grad()
def draw_biases_anew(small: nn.Module, seed: int) -> None:
    """Draw the query, key and value biases of a compact network as a fresh Linear of d inputs has them.

    Uniform in +-1/sqrt(d). Rows that only fill a head up to the widest stay zero.

    Args:
        small: the network, on the CPU; changed in place.
        seed: of a generator of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    for pair in find_pairs(small):
        parts = unit_weights(small, pair) if pair.kind != "mlp" else []
        for bias in (part for part in parts if part.parameter.ndim == 1):
            weight = small.get_parameter(bias.name.removesuffix("bias") + "weight")
            rows = bias.index.flatten()
            rows = rows[weight[rows].any(dim=1)]
            bound = weight.shape[1] ** -0.5
            bias.parameter[rows] = torch.empty(len(rows)).uniform_(-bound, bound, generator=generator)


class UPopMethod(Method[UPopConfig]):
    """One search for each budget; members lose their biases where the released code is asked for."""

    def build_search(self, config: UPopConfig, masked: MaskedModel, request: SearchRequest) -> UPopSearch:
        """The search for one budget.

        Raises:
            ValueError: the budget cannot be reached, or the units cannot be tied.
        """
        return UPopSearch(config, masked, request.num_steps, request.required_budget)

    def finish_member(self, config: UPopConfig, small: nn.Module, seed: int) -> dict[str, Any]:
        """The released loss of biases, where asked for."""
        if config.released_quirks:
            draw_biases_anew(small, seed)
        return {}


METHOD = UPopMethod()
