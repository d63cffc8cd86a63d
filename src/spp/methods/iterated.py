"""Searches that measure, say in which order units shall go, take the first of them out, and measure again."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import dense_total, split, unit_costs
from spp.methods.bundles import take_gradients
from spp.methods.iterated_config import IteratedConfig
from spp.methods.search import RankingSearch
from spp.structure.masked import MaskedModel


class IteratedSearch(RankingSearch):
    """Divides its steps among the measurings.

    Args:
        config: the settings.
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.
        start_share: MACs, as a share of the dense network's, that are left when it begins; see `start_without`.

    Attributes:
        is_left: units that no cut has taken so far, (num_units,) bool.
        costs: MACs of the units, (num_units,).
    """

    per_cost = False  # the order of removal has the costs in it

    def __init__(
        self, config: IteratedConfig, masked: MaskedModel, num_steps: int, *, start_share: float = 1.0
    ) -> None:
        super().__init__(masked, num_steps)
        if 0 < num_steps < config.num_cuts:
            raise ValueError(
                f"method.num_cuts: {config.num_cuts} is not allowed in a search of {num_steps} steps; allowed: up to "
                "one for each step; use fewer, or more search.epochs"
            )
        self.config = config
        self.costs = unit_costs(self.pairs, "macs")
        self.is_left = torch.ones(len(self.costs), dtype=torch.bool)
        self._place = torch.full((len(self.costs),), -1.0, dtype=torch.float64)
        self._num_measured = 0
        self._num_cuts_done = 0
        self._start_share = start_share

    @property
    def samples_targets(self) -> bool:
        return True

    @abstractmethod
    def watch(self) -> None:
        """Look at the next forward and backward pass."""

    @abstractmethod
    def take_in(self) -> int:
        """Add what was seen, and look no longer; returns the number of samples, over all devices."""

    @abstractmethod
    def order_of_removal(self) -> Tensor:
        """Numbers of the units that are left, the first to go first; by what was seen since the last cut."""

    @abstractmethod
    def take_out(self, removed: dict[str, Tensor]) -> None:
        """Take units, bool by pair name, out of the network, and forget what was seen."""

    def start_without(self, units: Tensor) -> None:
        """Begin with some units gone; `units` are their numbers, the first to go first."""
        self._remove(units.tolist())

    def before_forward(self) -> None:
        if self._num_measured < self.config.num_samples:
            self.watch()

    def after_backward(self) -> None:
        take_gradients(self.masks)
        if self._num_measured < self.config.num_samples:
            self._num_measured += self.take_in()
        self.num_steps_taken += 1
        if self.num_steps_taken == math.ceil(self.num_steps * (self._num_cuts_done + 1) / self.config.num_cuts):
            self._cut()

    def scores(self) -> dict[str, Tensor]:
        """The place of every unit in the order of removal, from 0.

        Raises:
            ValueError: there was no step.
        """
        if self.is_left.any():
            name = self.config.name
            raise ValueError(
                f"method.name: {name} is not allowed in a search of 0 steps; allowed: 1 or more; use magnitude"
            )
        return split(self.pairs, self._place)

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "place": self._place.clone(),
            "num_measured": self._num_measured,
            "num_cuts_done": self._num_cuts_done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self._place = state["place"].cpu().clone()
        self.is_left = self._place < 0
        self._num_measured, self._num_cuts_done = int(state["num_measured"]), int(state["num_cuts_done"])

    def _cut(self) -> None:
        order = self.order_of_removal().tolist()
        self._num_cuts_done += 1
        if self._num_cuts_done < self.config.num_cuts:
            ratio = self.config.cut_to / self._start_share
            order = self._down_to(self._start_share * ratio ** (self._num_cuts_done / self.config.num_cuts), order)
        self._num_measured = 0
        self._remove(order)

    def _remove(self, order: list[int]) -> None:
        """Take units out of the network; they have the next places."""
        first = int((~self.is_left).sum())
        self._place[order] = torch.arange(first, first + len(order), dtype=torch.float64)
        removed = self.is_left.clone()
        self.is_left[order] = False
        removed &= ~self.is_left
        self.take_out(split(self.pairs, removed))

    def _down_to(self, share: float, order: list[int]) -> list[int]:
        """The first units of an order without which a share of the dense MACs is left; each pair keeps one."""
        total = dense_total(self.pairs, "macs")
        excess = total - float(self.costs[~self.is_left].sum()) - share * total
        pair_of = torch.repeat_interleave(torch.tensor([pair.size for pair in self.pairs])).tolist()
        num_left = torch.bincount(torch.tensor(pair_of)[self.is_left], minlength=len(self.pairs)).tolist()
        taken = []
        for unit in order:
            if excess <= 0:
                break
            if num_left[pair_of[unit]] > 1:
                num_left[pair_of[unit]] -= 1
                taken.append(unit)
                excess -= float(self.costs[unit])
        return taken
