"""The search of DSP; see config.py for what is mended and what is ours."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import ROUNDING, Budget, dense_total
from spp.methods.bundles import Bundles, take_gradients, write_masks
from spp.methods.method import Method
from spp.methods.search import BudgetSearch, SearchRequest
from spp.methods.units.dsp.config import DSPConfig
from spp.structure.masked import MaskedModel

TINY = torch.finfo(torch.float64).tiny


class DSPSearch(BudgetSearch):
    """A gate on every head, K of them open.

    Attributes:
        weights: one per head, (num_heads,) float64.
    """

    def __init__(self, config: DSPConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(masked, num_steps, budget)
        self.config = config
        self.bundles = Bundles.heads(self.pairs, with_mlp=False)
        self._size = self.bundles.size(budget, 0)
        # Draws of its own, so that data and dropout do not shift them and a continued search goes on with them.
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        num_heads, num_layers = len(self.bundles), len(self.bundles.groups)
        bound = math.sqrt(6 / (num_heads / num_layers + num_layers))
        uniform = torch.rand(num_heads, dtype=torch.float64, generator=self._generator)
        self.weights = ((2 * uniform - 1) * bound).requires_grad_()
        self._optimizer = torch.optim.Adam([self.weights], lr=config.lr)
        self._values = torch.cat([torch.full((pair.size,), pair.kind == "vo") for pair in self.pairs])
        self._gates: Tensor | None = None

    def before_forward(self) -> None:
        if self._num_own_steps() < 0:
            return
        with torch.enable_grad():
            if self.config.straight_through:
                gates = straight_through_top(self.weights, self.num_kept(), drops_ties=self.config.released_quirks)
            else:
                gates = relaxed_top(self.weights + self._gumbel(), self.num_kept(), self.temperature())
            self._gates = torch.where(self._values, self.bundles.expand(gates), 1.0)
        write_masks(self.masked, self._gates)

    def after_backward(self) -> None:
        gradient = take_gradients(self.masks)
        self.num_steps_taken += 1
        if self._num_own_steps() <= 0:
            return
        if self.config.weights_first:
            for parameter in self.masked.model.parameters():
                parameter.grad = None  # not 0, which would let the weights decay
        self.weights.grad = torch.zeros_like(self.weights)
        if self._gates is not None and self._gates.requires_grad:
            torch.autograd.backward(self._gates, gradient)
        self._gates = None
        num_before = self._num_own_steps() - 1
        self._optimizer.param_groups[0]["lr"] = self.config.lr * (1 - num_before / self._num_steps_in_all())
        self._optimizer.step()

    def num_kept(self) -> int:
        """K: the most heads, in the order of their weights, that the budget pays for."""
        costs = self.bundles.costs(self.budget.kind)
        dense = dense_total(self.pairs, self.budget.kind)
        spent = dense - float(costs.sum()) + costs[self._order()].cumsum(0)
        return int(torch.searchsorted(spent, self._size + ROUNDING * dense, right=True))

    def temperature(self) -> float:
        """The temperature of the next step."""
        progress = min(1.0, max(0, self._num_own_steps()) / (self.config.cooldown * self._num_steps_in_all()))
        first, last = math.log(self.config.first_temperature), math.log(self.config.last_temperature)
        return math.exp(first + progress * (last - first))

    def final_masks(self) -> dict[str, Tensor]:
        kept = torch.zeros(len(self.bundles), dtype=torch.bool)
        kept[self._order()[: self.num_kept()]] = True
        return self.bundles.masks(kept)

    def metrics(self) -> dict[str, float]:
        return {"num_kept_heads": float(self.num_kept()), "temperature": self.temperature()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "weights": self.weights.detach().clone(),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())

    def _num_own_steps(self) -> int:
        """Steps taken since the heads' weights move; below 0 before that."""
        return self.num_steps_taken - (self.num_steps - self._num_steps_in_all())

    def _num_steps_in_all(self) -> int:
        """Steps in which the heads' weights move."""
        return self.num_steps - int(self.config.weights_first * self.num_steps)

    def _order(self) -> Tensor:
        return torch.argsort(self.weights.detach(), descending=True, stable=True)

    def _gumbel(self) -> Tensor:
        uniform = torch.rand(len(self.bundles), dtype=torch.float64, generator=self._generator).clamp(min=TINY)
        return -torch.log(-torch.log(uniform))


def relaxed_top(scores: Tensor, num_kept: int, temperature: float) -> Tensor:
    """Sum of `num_kept` softmax draws without replacement: 0 or more, adding up to `num_kept`.

    At middling temperatures what is drawn already is not used up, and a gate may pass 1.

    Args:
        scores: (n,) float64; in less, what is left of a drawn entry has no finite logarithm.
        num_kept: 0 to n; at 0 and n there is nothing to choose, and no gradient.
        temperature: towards 0 the choice of the largest `num_kept` scores.
    """
    if num_kept in (0, len(scores)):
        return torch.full_like(scores, float(num_kept > 0), requires_grad=False)
    gates = torch.zeros_like(scores)
    for _ in range(num_kept):
        draw = torch.softmax(scores / temperature, dim=0)
        scores = scores + torch.log((1 - draw).clamp(min=TINY))
        gates = gates + draw
    return gates


def straight_through_top(weights: Tensor, num_kept: int, *, drops_ties: bool = False) -> Tensor:
    """1 for the `num_kept` largest weights, else 0, with the identity as gradient.

    Args:
        weights: (n,).
        num_kept: 0 to n.
        drops_ties: leave out every weight that is not above the largest one left out.
    """
    order = torch.argsort(weights.detach(), descending=True, stable=True)
    hard = torch.zeros_like(weights, requires_grad=False)
    hard[order[:num_kept]] = 1.0
    if drops_ties and num_kept < len(weights):
        hard = (weights.detach() > weights.detach()[order[num_kept]]).to(hard.dtype)
    return hard + (weights - weights.detach())


class DSPMethod(Method[DSPConfig]):
    """One search for each budget, of heads alone."""

    def build_search(self, config: DSPConfig, masked: MaskedModel, request: SearchRequest) -> DSPSearch:
        """The search for one budget.

        Raises:
            ValueError: the budget cannot be reached by dropping heads, or the pairs share their units over the heads.
        """
        return DSPSearch(config, masked, request.num_steps, request.required_budget)


METHOD = DSPMethod()
