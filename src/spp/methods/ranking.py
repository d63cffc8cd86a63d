"""What all methods whose searches end in scores have in common."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from spp.config import require
from spp.methods.method import Method, MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ordered_units import OrderedUnits


@dataclass(frozen=True, kw_only=True)
class RankingConfig(MethodConfig):
    """Base of the settings; a method adds what shapes its scores."""

    kinds: ClassVar[tuple[str, ...]] = ("ranking",)
    selection_fields: ClassVar[tuple[str, ...]] = ("scope", "min_units")
    scopes: ClassVar[tuple[str, ...]] = ("global", "family")
    """What `scope` may be."""

    scope: str = "global"
    """global (one list of all units, cost-aware unless the module says otherwise) or family (equal shares of attention
    and MLP units)."""
    min_units: int = 1
    """Units that every pair keeps at least."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scope in self.scopes, "scope", self.scope, ", ".join(self.scopes), f"use {type(self).scope}")


RankingConfigT = TypeVar("RankingConfigT", bound=RankingConfig)


class RankingMethod(Method[RankingConfigT]):
    """Takes the best units that the budget pays for."""

    def select(self, config: RankingConfigT, path: "OrderedUnits", kind: str, size: float) -> "dict[str, Tensor]":
        return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
