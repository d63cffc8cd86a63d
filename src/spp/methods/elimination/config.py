"""Settings of a search by elimination; see search.py."""

from dataclasses import dataclass, replace

from spp.config import require
from spp.methods.iterated_config import IteratedConfig
from spp.methods.method import SearchCost


@dataclass(frozen=True, kw_only=True)
class EliminationConfig(IteratedConfig):
    """Base of the settings of methods whose searches eliminate units."""

    num_repair_samples: int = 256
    """Samples of a measuring that the network is repaired with after it; num_cuts > 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        num = self.num_repair_samples
        require(num >= 1, "num_repair_samples", num, "1 or more", "use 256")

    def search_cost(self, num_steps: int, batch_size: int) -> SearchCost:
        """That of the steps, and of a repair after every cut but the last, behind which nothing is left."""
        num_repaired = (self.num_cuts - 1) * self.num_repair_samples
        return replace(super().search_cost(num_steps, batch_size), num_repaired=num_repaired)
