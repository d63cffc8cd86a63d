"""The contract of a method. A new one is a folder in units/ and a file in conf/method.

The folder holds

    __init__.py   empty but for a docstring
    config.py     `CONFIG`, a subclass of MethodConfig; without torch, because planning reads it
    search.py     `METHOD`, an instance of a subclass of Method; imported when a stage or the preflight runs
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spp.dynamics.ordered_units import OrderedUnits
    from spp.methods.search import Search, SearchRequest
    from spp.structure.masked import MaskedModel

KINDS = ("path", "ranking", "budget ranking", "budget")
"""What a search may end in: a solution path, scores for all budgets, scores for one budget, or one budget's member."""


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """What a search computes.

    Attributes:
        num_steps: steps in all, with those that the method adds to the recipe's.
        passes: what a sample of a step costs, in forward passes; a teacher's is not in it, unless the method has one.
        further_passes: samples that go forward through the dense network beside the steps.
        num_repaired: samples of all repairs of the whole network in between, each with the network at its full size.
    """

    num_steps: int
    passes: float
    further_passes: float = 0.0
    num_repaired: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """Settings of a method: those that shape its search, and those that choose a member from what it found."""

    kinds: ClassVar[tuple[str, ...]]
    """What its searches may end in, of KINDS; the first is that of its own pipeline."""
    trains_weights: ClassVar[bool] = True
    """Whether the weights move with the masks in a search; if not they are frozen."""
    samples_targets: ClassVar[bool] = False
    """Whether the loss of a search is that of answers drawn from the network's own outputs: it needs no labels."""
    max_search_epochs: ClassVar[int | None] = None
    """Epochs beyond which a search learns nothing more; None: there is no such number."""
    has_own_floors: ClassVar[bool] = False
    """Whether members keep more than `min_units` of every pair, whatever a search finds."""
    selection_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that choose a member from what a search found; all others shape the search."""
    preset_recipes: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType({})
    """By preset and recipe the fields that the preset wants otherwise, where neither conf/ nor the user sets them."""

    name: str
    """Name of the method."""

    def __post_init__(self) -> None:
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    @property
    def needs_heads(self) -> bool:
        """Whether units are told apart by heads, whatever model.per_head says."""
        return False

    @property
    def masks_first_maps(self) -> bool:
        """Whether the masks of a search multiply what the first maps of the pairs put out; see MaskedModel."""
        return False

    @property
    def num_revisions(self) -> int:
        """How often the code of the searches has changed so that one with these settings finds something else.

        Counted by hand; it is part of the version of the stages that search, so that what they found before counts no
        more.
        """
        return 0

    @property
    def num_revisions_of_texts(self) -> int:
        """The same, beside `num_revisions`, for networks that read padded texts alone."""
        return 0

    @property
    def is_driven_by_dense(self) -> bool:
        """Whether the loss of a search is the distance to the dense network's outputs: it needs no labels."""
        return False

    def search_cost(self, num_steps: int, batch_size: int) -> SearchCost:
        """What a search computes.

        A step that trains weights costs a forward pass and a backward pass of twice that; where they stand still the
        backward pass only goes on to the inputs of each layer. The dense network, where it drives the search, costs
        one more.

        Args:
            num_steps: those of the recipe, 1 or more.
            batch_size: samples of each.
        """
        return SearchCost(num_steps=num_steps, passes=(3 if self.trains_weights else 2) + self.is_driven_by_dense)

    @property
    def min_units(self) -> int:
        """Units that every pair keeps at least; a field of most methods."""
        return 1

    def search_settings(self, kind: str) -> dict[str, Any]:
        """The settings that shape a search which ends in `kind` (of `kinds`), with the name of the method.

        Raises:
            ValueError: if a setting is set that such a search does not use.
        """
        return {name: value for name, value in self.identity().items() if name not in self.selection_fields}

    def selection_settings(self) -> dict[str, Any]:
        """The settings that choose a member, with the name of the method; changing them repeats no search."""
        return {name: value for name, value in self.identity().items() if name in ("name", *self.selection_fields)}


ConfigT = TypeVar("ConfigT", bound=MethodConfig)


class Method(ABC, Generic[ConfigT]):
    """What a method does with its settings."""

    @abstractmethod
    def build_search(self, config: ConfigT, masked: "MaskedModel", request: "SearchRequest") -> "Search":
        """The search that `request` asks for.

        Args:
            config: the settings; those that only choose a member play no part.
            masked: the network with its masks at 1.
            request: how many steps there will be, the seed, and the budget of a search for one.

        Raises:
            ValueError: one line, if this network or this budget cannot be searched.
        """

    def select(self, config: ConfigT, path: "OrderedUnits", kind: str, size: float) -> "dict[str, Tensor]":
        """Choose the member at a budget from what a search found.

        Args:
            config: the settings; those that only shape the search play no part.
            path: what the search ended in.
            kind: macs, params or units.
            size: a fraction of the dense model (<= 1) or absolute.

        Returns:
            The units to keep, by pair name: (size,) bool.

        Raises:
            ValueError: the budget is out of reach, or a search of this method ends in one member.
        """
        raise ValueError(
            f"method.name: {config.name} is not allowed where members are chosen from an order of units: its search "
            "ends in one member; allowed: a method that ranks; take the member of the search"
        )

    def finish_member(self, config: ConfigT, small: "nn.Module", seed: int) -> dict[str, Any]:
        """Do to a compact network, in place, what the method does beside cutting: for most methods nothing.

        Args:
            config: the settings, or those of them that choose a member.
            small: the compact network, on the CPU.
            seed: of the point; what is drawn depends on it alone.

        Returns:
            What the header of the member's file must say, for the network to be built again.

        Raises:
            ValueError: it cannot be done to this network.
        """
        return {}
