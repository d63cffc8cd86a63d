"""What the settings of all methods that end in a ranking have in common: which of them choose a member, and how."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import Tensor

    from spp.dynamics.ranking import Ranking

SELECTION_FIELDS = ("scope", "min_units")


@dataclass(frozen=True, kw_only=True)
class RankingConfig(Config):
    """Base of those settings; a method adds what shapes its scores."""

    name: str
    """Name of the method."""
    scope: str = "global"
    """global (one list of all units, cost-aware unless the module says otherwise) or family (equal shares of attention
    and MLP units)."""
    min_units: int = 1
    """Units that every pair keeps at least."""

    def __post_init__(self) -> None:
        require(self.scope in ("global", "family"), "scope", self.scope, "global, family", f"use {type(self).scope}")
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the ranking."""
        return {name: value for name, value in self.plain().items() if name not in SELECTION_FIELDS}

    def selection(self) -> dict[str, Any]:
        """The settings that choose a member from a ranking; changing them repeats no search."""
        return {"name": self.name, **{name: getattr(self, name) for name in SELECTION_FIELDS}}


def select_member(config: RankingConfig, path: "Ranking", kind: str, size: float) -> "dict[str, Tensor]":
    """Masks of the member at a budget: `kind` macs, params or units; `size` a fraction (<= 1) or absolute."""
    return path.masks(**{kind: size}, scope=config.scope, min_units=config.min_units)
