"""What every rival's search has in common: it sees the masks' gradients step by step and ends in a choice of units.

The stage owns the data, the weights and their optimizer, the precision, the devices and the checkpoints; a method owns
its masks and whatever variables stand behind them. Per training step the stage calls, in this order:

    search.before_forward()          the method sets the masks (and may change weights for the time of this step)
    scores = masked(images)          the training loss is that of these and of all search.auxiliary_scores()
    loss.backward()                  gradients of masks and of trained weights are there, averaged over devices
    search.after_backward()          the method reads the masks' gradients and moves its variables; it may add to the
                                     weights' gradients, undoes what it did to weights, clears the masks' gradients
    optimizer.step()                 where `trains_weights`
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from spp.dynamics.budget import Budget
from spp.structure.masked import MaskedModel, Masks
from spp.structure.pair import Pair
from spp.structure.tokens import Kept


class Search(ABC):
    """The state of one search.

    Args:
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.

    Attributes:
        num_steps_taken: steps done so far.
    """

    trains_weights: ClassVar[bool]
    """Whether the weights move with the masks; if not they are frozen."""

    def __init__(self, masked: MaskedModel, num_steps: int) -> None:
        self.masked = masked
        self.masks: Masks = masked.masks
        self.pairs: list[Pair] = self.masks.pairs
        self.num_steps = num_steps
        self.num_steps_taken = 0

    def before_forward(self) -> None:  # noqa: B027 - most methods leave the masks where they are
        """Prepare the masks for the next step."""

    def auxiliary_scores(self) -> Sequence[Tensor]:
        """Scores of further classifiers for the batch of the last forward pass, (batch, num_classes) each."""
        return ()

    @abstractmethod
    def after_backward(self) -> None:
        """Take one step by the gradients that the backward pass left in the masks; counts it."""

    def metrics(self) -> dict[str, float]:
        """What the record shall know at the end of an epoch, by name."""
        return {}

    def summary(self) -> dict[str, Any]:
        """What the summary of the stage shall know at the end of the search, by name: plain JSON values."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the search goes on, apart from masks and weights: tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""


class RankingSearch(Search):
    """A search that ends in a score for every unit: one search for all budgets."""

    per_cost: bool = True
    """Whether one list over all families divides a score by its unit's cost; False where it plays no part any more."""

    @abstractmethod
    def scores(self) -> dict[str, Tensor]:
        """How much a unit is worth, by pair name: (size,) float64, larger is better, not divided by costs."""

    def kept_tokens(self) -> Kept:
        """The tokens that the blocks of every member see; empty if that is all of them."""
        return {}


class BudgetSearch(Search):
    """A search for one budget.

    Args:
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.
        budget: the size to reach, achieved and not nominal.
    """

    def __init__(self, masked: MaskedModel, num_steps: int, budget: Budget) -> None:
        super().__init__(masked, num_steps)
        self.budget = budget

    @abstractmethod
    def final_masks(self) -> dict[str, Tensor]:
        """The units to keep, by pair name: (size,) bool; their cost is within one unit below the budget."""

    def final_network(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network that the final masks are for; arguments of its constructor that are not the dense one's."""
        return self.masked.model, {}

    def final_weights(self) -> dict[str, Tensor]:
        """The single weights to keep, where a method prunes below units: bool by parameter name, of its shape."""
        return {}
