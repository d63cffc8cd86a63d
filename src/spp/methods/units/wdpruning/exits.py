"""WDPruning with output heads behind several blocks in one search; which of them a member has is chosen at its end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spp.dynamics.budget import Budget, OutOfReachError, dense_total, join
from spp.methods.bundles import Bundles, write_masks
from spp.methods.units.wdpruning.config import WDPruningConfig
from spp.methods.units.wdpruning.depth import Exits, cut_at, require_depth
from spp.methods.units.wdpruning.thresholds import WDPruningSearch, bundles_of
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel

JUDGED_SHARE = 0.05
"""Of the steps, at the end, in which scores and thresholds rest and the depths are compared."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A depth that the member may have.

    Attributes:
        depth: blocks.
        bundles: of the network of these blocks; the first ones of the whole network's.
        budget: the size that is asked for, in absolute terms.
    """

    depth: int
    bundles: Bundles
    budget: Budget


class WDPruningExitSearch(WDPruningSearch):
    """Scores and thresholds of the whole network under the loss of all output heads, and a choice of the depth.

    In the last steps the masks are in turn those with which each depth fills the budget, and its output head's loss is
    noted; the least mean decides, unless the depth is said.

    Attributes:
        losses: noted losses by depth, of all candidates, the whole network first.
    """

    def __init__(self, config: WDPruningConfig, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        num_blocks = require_depth(masked.model, max(config.exits), "exits")
        super().__init__(config, masked, num_steps, budget)
        self._depths = (num_blocks, *config.exits)
        self._candidates = _candidates(config, masked, budget, num_blocks)
        self.losses: dict[int, list[float]] = {candidate.depth: [] for candidate in self._candidates}
        num_candidates = len(self._candidates)
        num_each = math.ceil(JUDGED_SHARE * num_steps / num_candidates) if num_candidates > 1 else 0
        self.num_judging_steps = min(num_steps, num_each * num_candidates)
        self._exits = Exits(masked.model, config.exits)

    def before_forward(self) -> None:
        super().before_forward()
        judged = self._judged()
        if judged is not None:
            units = self.bundles.expand(self._chosen)
            own = join(judged.bundles.units, self.masks_of(judged))
            units[: len(own)] = own.double()  # the pairs of the first blocks come first
            write_masks(self.masked, units)

    def auxiliary_outputs(self) -> Sequence[Tensor]:
        return self._exits.take_outputs()

    def see_losses(self, losses: Sequence[Tensor]) -> None:
        judged = self._judged()
        if judged is not None:
            self.losses[judged.depth].append(float(losses[self._depths.index(judged.depth)].detach()))

    def masks_of(self, candidate: Candidate) -> dict[str, Tensor]:
        """The units of its blocks that a candidate keeps: all thresholds shifted together until the budget is full."""
        bundles = candidate.bundles
        scores, thresholds = self.scores[: len(bundles)], self.thresholds[: len(bundles.groups)]
        key = bundles.shift_key(scores, thresholds)
        return bundles.fill(key, scores, candidate.budget, self.config.min_units)

    def chosen_candidate(self) -> Candidate:
        """The one of the least mean loss; of equal ones, and before any is noted, the deepest."""
        return min(self._candidates, key=lambda candidate: self._mean_loss(candidate.depth))

    def final_masks(self) -> dict[str, Tensor]:
        return self.masks_of(self.chosen_candidate())

    def final_network(self) -> tuple[nn.Module, dict[str, Any]]:
        chosen = self.chosen_candidate()
        self.pairs = chosen.bundles.units
        self._exits.leave_through(chosen.depth)
        return self.masked.model, {} if chosen.depth == self._depths[0] else {"depth": chosen.depth}

    def summary(self) -> dict[str, Any]:
        noted = {str(depth): self._mean_loss(depth) for depth, losses in self.losses.items() if losses}
        return {**super().summary(), "depth": self.chosen_candidate().depth, "losses_by_depth": noted}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "losses": {depth: list(losses) for depth, losses in self.losses.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.losses = {depth: list(losses) for depth, losses in state["losses"].items()}

    def _moves(self) -> bool:
        return self._judged() is None

    def _mean_loss(self, depth: int) -> float:
        losses = self.losses[depth]
        return sum(losses) / len(losses) if losses else math.inf

    def _judged(self) -> Candidate | None:
        """The candidate that the running step judges."""
        num_left = self.num_steps - self.num_steps_taken
        if not 0 < num_left <= self.num_judging_steps:
            return None
        return self._candidates[(self.num_judging_steps - num_left) % len(self._candidates)]


def _candidates(config: WDPruningConfig, masked: MaskedModel, budget: Budget, num_blocks: int) -> list[Candidate]:
    """The depths at which the budget can be filled, or the one that is said; the deepest first."""
    size = budget.value * dense_total(masked.pairs, budget.kind) if budget.value <= 1 else budget.value
    per_head, model = any(pair.per_head for pair in masked.pairs), masked.model
    depths = [num_blocks, *sorted(config.exits, reverse=True)]
    found = []
    for depth in depths if config.depth is None else [config.depth]:
        with cut_at(model, depth):
            bundles = bundles_of(config, find_pairs(model, per_head=per_head))
        candidate = Candidate(depth, bundles, Budget(budget.kind, size))
        try:
            bundles.size(candidate.budget, config.min_units)
        except OutOfReachError:
            if config.depth is not None or depth == num_blocks:
                raise
        else:
            found.append(candidate)
    return found
