"""What every search has in common: it sees the masks' gradients step by step and ends in a choice of units.

The stage owns the data, the weights and their optimizer, the precision, the devices and the checkpoints; a search owns
its masks and whatever variables stand behind them. The stage calls `on_epoch_start` once per epoch, and per training
step, in this order:

    search.before_forward()          the search sets the masks (and may change weights for the time of this step)
    outputs = masked(...)            the training loss is that of these and of all search.auxiliary_outputs()
    search.see_losses([...])         the loss of each of them
    loss.backward()                  gradients of masks and of trained weights are there, averaged over devices
    search.after_backward()          the search reads the masks' gradients and moves its variables; it may add to the
                                     weights' gradients, undoes what it did to weights, clears the masks' gradients
    optimizer.step()                 where the method's config has `trains_weights`
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spp.dynamics.budget import Budget
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.ranking import Ranking
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel, Masks
from spp.structure.pair import Pair
from spp.structure.tokens import Kept, drop_tokens


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a stage asks of a method.

    Attributes:
        num_steps: training steps of the recipe, one per batch; a search may have more, as its own num_steps tells.
        seed: of the point; what a search draws beside torch's own generator depends on it alone.
        batch_size: samples of a step, over all devices together.
        budget: the size to reach, of a search for one budget.
    """

    num_steps: int
    seed: int
    batch_size: int
    budget: Budget | None = None

    @property
    def required_budget(self) -> Budget:
        """The budget, of a method that cannot search without one.

        Raises:
            ValueError: there is none.
        """
        if self.budget is None:
            raise ValueError("budget: None is not allowed in a search for one budget; allowed: a Budget; give one")
        return self.budget


class Search(ABC):
    """The state of one search.

    Args:
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have.

    Attributes:
        num_steps_taken: steps done so far.
    """

    def __init__(self, masked: MaskedModel, num_steps: int) -> None:
        self.masked = masked
        self.masks: Masks = masked.masks
        self.pairs: list[Pair] = self.masks.pairs
        self.num_steps = num_steps
        self.num_steps_taken = 0

    @property
    def samples_targets(self) -> bool:
        """Whether the next step's loss is that of answers drawn from the network's own outputs, not of labels."""
        return False

    def on_epoch_start(self, epoch: int, num_epochs: int) -> None:  # noqa: B027 - most searches count steps alone
        """Prepare for epoch number `epoch`, from 0, of `num_epochs`."""

    def before_forward(self) -> None:  # noqa: B027 - most searches leave the masks where they are
        """Prepare the masks for the next step."""

    def auxiliary_outputs(self) -> Sequence[Tensor]:
        """What further heads that are trained along put out for the batch of the last forward pass.

        Each has the shape of the network's own output, and the training loss of each is added to the network's.
        """
        return ()

    def see_losses(self, losses: Sequence[Tensor]) -> None:  # noqa: B027 - most searches go by gradients alone
        """Look at the losses of the running step: of the network's own outputs, then of every auxiliary one."""

    def trains(self, name: str) -> bool:
        """Whether a parameter of the network, by its dotted name, trains where the method trains weights."""
        return True

    @abstractmethod
    def after_backward(self) -> None:
        """Take one step by the gradients that the backward pass left in the masks; counts it."""

    def metrics(self) -> dict[str, float]:
        """What the record shall know at the end of an epoch, by name."""
        return {}

    def progress_note(self) -> str:
        """A few words on how far the search is, beside its number of steps; it may make a GPU wait."""
        return ""

    def summary(self) -> dict[str, Any]:
        """What the summary of the stage shall know at the end of the search, by name: plain JSON values."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the search goes on, apart from masks and weights: tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""


class OrderSearch(Search):
    """A search that ends in an order of all units: one search for all budgets."""

    @abstractmethod
    def order(self, meta: Mapping[str, Any]) -> OrderedUnits:
        """What the search found, a solution path or a ranking; called once, after the last step.

        Args:
            meta: where it comes from, anything JSON can hold; goes into the file.

        Raises:
            ValueError: there is no order, as after too few steps or in a search that diverged.
        """


class RankingSearch(OrderSearch):
    """A search that ends in a score for every unit."""

    per_cost: bool = True
    """Whether one list over all families divides a score by its unit's cost; False where it plays no part any more."""

    @abstractmethod
    def scores(self) -> dict[str, Tensor]:
        """How much a unit is worth, by pair name: (size,) float64, larger is better, not divided by costs."""

    def kept_tokens(self) -> Kept:
        """The tokens that the blocks of every member see; empty if that is all of them."""
        return {}

    def order(self, meta: Mapping[str, Any]) -> Ranking:
        """The ranking by the scores; the network loses the tokens that no member sees."""
        scores, tokens, pairs, dense = self.scores(), self.kept_tokens(), self.pairs, self.pairs[0].model_cost
        if tokens:
            drop_tokens(self.masked.model, tokens)
            pairs = find_pairs(self.masked.model, per_head=any(pair.per_head for pair in pairs))
        return Ranking.from_scores(scores, pairs, per_cost=self.per_cost, tokens=tokens, dense=dense, meta=meta)


class BudgetSearch(Search):
    """A search that ends in the member of one budget.

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
