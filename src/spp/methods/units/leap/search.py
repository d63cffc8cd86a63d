"""The search of LEAP; see config.py for what is mended and what is ours."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import Budget, dense_total, split
from spp.methods.bundles import Bundles, remaining_share, take_gradients, write_masks
from spp.methods.method import Method
from spp.methods.search import BudgetSearch, SearchRequest
from spp.methods.units.leap.config import BLOCK, LEAPConfig
from spp.methods.units.leap.weights import ROW, Part, WeightMasks, best, find_parts
from spp.structure.masked import MaskedModel

FIRST_LOGIT = 10.0
TINY_SCORE = 1e-6
RELEASED_SMALL_PENALTY = 3e-4
RELEASED_SMALL_STRENGTH = 10.0
LARGEST_SHIFT = 50.0
NUM_HALVINGS = 80


@dataclass(frozen=True, eq=False)
class Choice:
    """Masks of one moment.

    Attributes:
        units: 0/1 for every unit of a pair, (num_units,) float64.
        weights: 0/1 for the weights of every part; empty if weights are not pruned one by one.
    """

    units: Tensor
    weights: list[Tensor]


class LEAPSearch(BudgetSearch):
    """Learned scores and keep ratios under a regulariser.

    Attributes:
        target: R_t.
        scores: of the units, (num_units,) float64; where whole heads go, of heads and MLP units.
        sigmas: of the pairs, (num_pairs,) float64; then those of the parts. Where whole heads go, an attention has one.
        frozen: whether the choice is made.
    """

    def __init__(self, config: LEAPConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(masked, num_steps, budget)
        self.config = config
        self.bundles = self._bundles()
        self.has_units = config.granularity in ("structured", "head", "hybrid")
        parts = [] if config.granularity in ("structured", "head") else self._find_parts()
        self.parts: list[Part] = parts
        self.weight_masks = WeightMasks(parts)
        self._part_sizes = torch.tensor([part.size for part in parts], dtype=torch.float64)
        self._num_tiles = torch.tensor([part.num_tiles for part in parts], dtype=torch.float64)
        self._pair_of_part = torch.tensor([part.pair for part in parts], dtype=torch.int64)
        self.target = self._target()
        tiny = 0.0 if config.released_quirks else TINY_SCORE
        self.scores = tiny * torch.rand(len(self.bundles), dtype=torch.float64)
        self.weight_scores = [
            tiny * part.sum_of_tiles(part.gather(part.parameter.detach()).abs()) / part.tile_size for part in parts
        ]
        num_sigmas = len(self.bundles.groups) + len(parts)
        self.sigmas = torch.full((num_sigmas,), FIRST_LOGIT * config.temperature, dtype=torch.float64)
        self.frozen = False
        self._choice = Choice(torch.ones(sum(pair.size for pair in self.pairs), dtype=torch.float64), [])
        self._final: Choice | None = None
        lr = config.lr or config.temperature * max(0.01, 40 / max(num_steps, 1))
        self._largest_rates = (lr, config.score_lr)
        groups = [{"params": [self.sigmas]}, {"params": [self.scores, *self.weight_scores]}]
        self._optimizer = torch.optim.Adam(groups)

    def before_forward(self) -> None:
        self._choice = self.chosen()
        write_masks(self.masked, self._choice.units)
        if self.parts:
            self.weight_masks.apply(self._choice.weights)

    def after_backward(self) -> None:
        weight_gradients = self.weight_masks.undo() if self.parts else []
        gradient = take_gradients(self.masks)
        if not self.frozen:
            self._move(self._choice, gradient, weight_gradients)
        self.num_steps_taken += 1

    def ratios(self) -> Tensor:
        """k of the pairs, or attentions and MLPs, and then of the parts; 1 for pairs whose units are not pruned."""
        return self._ratios(self.sigmas)

    def remaining(self) -> float:
        """R: the remaining share at the current keep ratios."""
        return float(self._remaining(self.sigmas))

    def strength(self, penalty: float) -> float:
        """lambda, for a penalty (R - R_t)^2."""
        if self.config.released_quirks and penalty < RELEASED_SMALL_PENALTY:
            return RELEASED_SMALL_STRENGTH
        if self.target == 1:
            return self.config.lambda_min
        return max(self.config.lambda_max * penalty / (1 - self.target) ** 2, self.config.lambda_min)

    def regulariser(self) -> tuple[float, Tensor]:
        """lambda (R - R_t)^2 and its gradient in the sigmas, lambda taken as constant; 0 at and below the target."""
        sigmas = self.sigmas.detach().requires_grad_()
        with torch.enable_grad():
            penalty = (self._remaining(sigmas) - self.target).clamp(min=0) ** 2
            (gradient,) = torch.autograd.grad(penalty, sigmas)
        strength = self.strength(penalty.item())
        return strength * penalty.item(), strength * gradient

    def chosen(self) -> Choice:
        """The masks of the forward pass."""
        self._follow_device()
        if self.frozen:
            self._final = self._final or self.final_choice()
            return self._final
        ratios = self.ratios()
        num_groups = len(self.bundles.groups)
        counts = torch.ceil(ratios[:num_groups] * self.bundles.sizes)
        weights = [
            part.tiles_of(best(scores, int(torch.ceil(ratio * part.num_tiles))))
            for scores, ratio, part in zip(self.weight_scores, ratios[num_groups:], self.parts, strict=True)
        ]
        return Choice(self.bundles.expand(self.bundles.top(self.scores, counts)), weights)

    def final_choice(self) -> Choice:
        """The masks that fill the budget, all keep ratios shifted together."""
        if not self.parts:
            key = self.bundles.shift_key(self.scores, self._logits()[: len(self.bundles.groups)])
            masks = self.bundles.fill(key, self.scores, self.budget, self.config.min_units)
            return Choice(torch.cat([masks[pair.name] for pair in self.pairs]).double(), [])
        low, high = -LARGEST_SHIFT, LARGEST_SHIFT
        for _ in range(NUM_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._excess(middle) <= 0 else (low, middle)
        units, regions, counts = self._counts(low)
        left = int(-self._excess(low))
        weights = []
        for part, scores, region, count in zip(self.parts, self.weight_scores, regions, counts, strict=True):
            more = min(left // part.tile_size, region - count)
            left -= more * part.tile_size
            rows = part.rows_of(self._of_pair(units, part.pair).bool()).to(scores.device) if self.has_units else None
            weights.append(part.tiles_of(best(scores, count + more, rows)))
        return Choice(units, weights)

    def final_masks(self) -> dict[str, Tensor]:
        return split(self.pairs, self._choice_to_keep().units.bool())

    def final_weights(self) -> dict[str, Tensor]:
        """The weights to keep where they are pruned one by one: bool by dotted name, of the parameters' shapes.

        The weights themselves are left as they are: multiply them by these, before compaction.
        """
        joined = self.weight_masks.joined(self._choice_to_keep().weights) if self.parts else {}
        return {name: mask.bool() for name, mask in joined.items()}

    def metrics(self) -> dict[str, float]:
        return {"kept_share": self.remaining(), "regulariser": self.regulariser()[0], "frozen": float(self.frozen)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "scores": self.scores.clone(),
            "weight_scores": [scores.clone() for scores in self.weight_scores],
            "sigmas": self.sigmas.clone(),
            "frozen": self.frozen,
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self.scores.copy_(state["scores"])
        for mine, saved in zip(self.weight_scores, state["weight_scores"], strict=True):
            mine.copy_(saved)
        self.sigmas.copy_(state["sigmas"])
        self.frozen = bool(state["frozen"])
        self._final = None
        self._optimizer.load_state_dict(state["optimizer"])

    def _move(self, choice: Choice, gradient: Tensor, weight_gradients: list[Tensor]) -> None:
        num_groups = len(self.bundles.groups)
        by_group = torch.zeros(num_groups, dtype=torch.float64)
        by_group.index_add_(0, self.bundles.group_of, self.bundles.reduce(gradient * choice.units))
        by_part = [float((g * mask).sum()) for g, mask in zip(weight_gradients, choice.weights, strict=True)]
        task = torch.cat([by_group, torch.tensor(by_part, dtype=torch.float64)])
        self.sigmas.grad = task / self.config.temperature + self.regulariser()[1]
        self.scores.grad = self.bundles.reduce(gradient)
        if not self.has_units:
            self.sigmas.grad[:num_groups] = 0.0
            self.scores.grad = torch.zeros_like(self.scores)
        for part, scores, own in zip(self.parts, self.weight_scores, weight_gradients, strict=True):
            scores.grad = part.sum_of_tiles(own)
        for group, rate in zip(self._optimizer.param_groups, self._largest_rates, strict=True):
            group["lr"] = rate * self._share_of_rate()
        self._optimizer.step()
        is_late = self.num_steps_taken + 1 >= self.config.freeze_at * self.num_steps
        self.frozen = is_late or self.remaining() - self.target < self.config.tolerance

    def _share_of_rate(self) -> float:
        """Of the largest step sizes, at this step: a linear warm-up from 0, then a linear decay to 0."""
        step, warmup = self.num_steps_taken, round(self.config.warmup_share * self.num_steps)
        if step < warmup:
            return step / warmup
        return (self.num_steps - step) / max(1, self.num_steps - warmup)

    def _follow_device(self) -> None:
        """The weights may have moved since the search was built; their scores are as many and go along."""
        for part, scores in zip(self.parts, self.weight_scores, strict=True):
            device = part.parameter.device
            if scores.device != device:
                scores.data = scores.data.to(device)
                moments = self._optimizer.state.get(scores, {})
                moments.update({name: moments[name].to(device) for name in moments if name != "step"})

    def _choice_to_keep(self) -> Choice:
        return self.chosen() if self.frozen else self.final_choice()

    def _logits(self) -> Tensor:
        return self.sigmas / self.config.temperature

    def _ratios(self, sigmas: Tensor) -> Tensor:
        ratios = torch.sigmoid(sigmas / self.config.temperature)
        if self.has_units:
            return ratios
        num_groups = len(self.bundles.groups)
        return torch.cat([torch.ones(num_groups, dtype=torch.float64), ratios[num_groups:]])

    def _remaining(self, sigmas: Tensor) -> Tensor:
        ratios, num_groups = self._ratios(sigmas), len(self.bundles.groups)
        if not self.parts:
            return remaining_share(ratios, self.bundles.sizes, self.bundles.group_costs(self.budget.kind))
        of_units = torch.maximum(ratios[:num_groups], 1 / self.bundles.sizes)[self._pair_of_part]
        of_weights = torch.maximum(ratios[num_groups:], 1 / self._num_tiles)
        return (of_units * of_weights * self._part_sizes).sum() / self._part_sizes.sum()

    def _bundles(self) -> Bundles:
        if self.config.granularity == "head":
            return Bundles.heads(self.pairs, with_mlp=True)
        return Bundles.single(self.pairs)

    def _find_parts(self) -> list[Part]:
        shapes = {"row": ROW, "block": (BLOCK, BLOCK)}
        return find_parts(self.masked.model, self.pairs, shapes.get(self.config.granularity, (1, 1)))

    def _target(self) -> float:
        if not self.parts:
            return self.bundles.keep_share(self.budget, self.config.min_units)
        if self.budget.kind != "params":
            raise ValueError(
                f"budget.kind: {self.budget.kind} is not allowed with method.granularity={self.config.granularity},"
                " which saves no multiply-adds of single weights; allowed: params; use budget.kind=params"
            )
        dense, prunable = dense_total(self.pairs, "params"), float(self._part_sizes.sum())
        target = 1 - (dense - self._size()) / prunable
        fewest = sum(part.tile_size for part in self.parts)
        if not fewest / prunable < target <= 1:
            lowest = 1 - (prunable - fewest) / dense
            raise ValueError(
                f"params: {self.budget.value:g} cannot be reached; allowed: more than {lowest:.4g} and at most 1 of the"
                " dense model; use params=0.5"
            )
        return target

    def _size(self) -> float:
        dense = dense_total(self.pairs, "params")
        return self.budget.value * dense if self.budget.value <= 1 else self.budget.value

    def _counts(self, shift: float) -> tuple[Tensor, list[int], list[int]]:
        """With all keep ratios shifted: the unit masks, and by part the tiles of kept units and those to keep."""
        ratios, num_pairs = torch.sigmoid(self._logits() + shift), len(self.pairs)
        units = torch.ones(len(self.bundles), dtype=torch.float64)
        if self.has_units:
            counts = torch.ceil(ratios[:num_pairs] * self.bundles.sizes).clamp(min=self.config.min_units)
            units = self.bundles.top(self.scores, counts)
        shares = [float(self._of_pair(units, part.pair).mean()) for part in self.parts]
        regions = [round(part.num_tiles * share) for part, share in zip(self.parts, shares, strict=True)]
        kept = [int(torch.ceil(k * n)) for k, n in zip(ratios[num_pairs:], regions, strict=True)]
        return units, regions, kept

    def _excess(self, shift: float) -> float:
        """Parameters that are not zero with all keep ratios shifted, above the budget."""
        units, regions, counts = self._counts(shift)
        removed = float((self.bundles.costs("params") * (1 - units)).sum())
        for part, region, count in zip(self.parts, regions, counts, strict=True):
            removed += (region - count) * part.tile_size
        return dense_total(self.pairs, "params") - removed - self._size()

    def _of_pair(self, units: Tensor, number: int) -> Tensor:
        return units[self.bundles.group_of == number]


class LEAPMethod(Method[LEAPConfig]):
    """One search for each budget."""

    def build_search(self, config: LEAPConfig, masked: MaskedModel, request: SearchRequest) -> LEAPSearch:
        """The search for one budget.

        Raises:
            ValueError: the budget cannot be reached, or does not count parameters where single weights are pruned.
        """
        return LEAPSearch(config, masked, request.num_steps, request.required_budget)


METHOD = LEAPMethod()
