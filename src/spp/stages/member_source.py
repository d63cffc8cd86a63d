"""What members are cut from: an order of units, and the dense network that it belongs to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spp.dynamics.path import SolutionPath
from spp.dynamics.ranking import Ranking, open_path
from spp.structure.cost import Cost


@dataclass(frozen=True, kw_only=True)
class CutMember:
    """A member that was cut from a path, not yet written anywhere.

    Attributes:
        network: the compact network, on the CPU, in evaluation mode.
        masks: the units of the dense network that it kept, by pair.
        architecture: of the dense network, see spp.models.build.
        runtime: where to find the factory of one's own network.
        dense: cost of the dense network.
        weights: whose weights it has, in words.
        keys: of the stages that it comes from, by kind.
        method: that found the path; "" where nobody says.
    """

    network: nn.Module
    masks: dict[str, Tensor]
    architecture: dict[str, Any]
    runtime: dict[str, Any]
    dense: Cost
    weights: str
    keys: dict[str, str]
    method: str


class MemberSource:
    """A path and its dense network; of this class itself no member has been trained.

    Attributes:
        path: the order of the units.
        dense: cost of the dense network.
    """

    path: SolutionPath | Ranking
    dense: Cost

    def dense_network(self) -> nn.Module:
        """The dense network with the weights that members are cut from, in evaluation mode, on the CPU."""
        raise NotImplementedError

    def select(self, kind: str, size: float, multiple_of: int) -> dict[str, Tensor]:
        """The units of the member at a budget, with widths rounded up to a multiple within it.

        Raises:
            ValueError: the size is out of reach.
        """
        raise NotImplementedError

    def cut(self, masks: dict[str, Tensor]) -> CutMember:
        """The member of these units."""
        raise NotImplementedError

    def repaired(self, member: CutMember, num_samples: int) -> CutMember:
        """A member re-fitted to the dense network on training samples.

        Raises:
            ValueError: no data are known.
        """
        raise NotImplementedError

    def finetuned(self, kind: str, size: float, multiple_of: int | None) -> CutMember | None:
        """The member that was trained for just this budget, if there is one."""
        return None

    def select_trained(self, kind: str, size: float) -> dict[str, Tensor] | None:
        """The units of the member at a budget for which there are trained weights, if there are any."""
        return None

    def is_trained(self, masks: Mapping[str, Tensor]) -> bool:
        """Whether there are trained weights for these units."""
        return False


class PathFile(MemberSource):
    """A path's file by itself: what its members cost can be said, but there is no network to cut them from.

    Raises:
        ValueError: one line, if there is none, or its pairs do not know what their network costs.
    """

    def __init__(self, source: str) -> None:
        self.path = open_path(source)
        dense = self.path.meta["dense"]
        if dense is None:
            raise ValueError(
                f"PATH_OR_SWEEP: {source!r} does not say what its network costs; allowed: a path of pairs from "
                "spp.find_pairs; search again with those"
            )
        self.dense = Cost(dense["macs"], dense["params"])

    def select(self, kind: str, size: float, multiple_of: int) -> dict[str, Tensor]:
        macs, params, units = (size if kind == each else None for each in ("macs", "params", "units"))
        return self.path.rounded_to(multiple_of).masks(macs=macs, params=params, units=units)


@contextmanager
def refusing_weights() -> Iterator[None]:
    """Let what is refused of a checkpoint, or of weights of timm, name --weights and not the model of a sweep."""
    try:
        yield
    except ValueError as error:
        said = str(error).replace("model.weights=", "--weights ").replace("model.weights", "--weights")
        raise ValueError(said) from None
