"""Settings of a search by elimination; see search.py."""

from dataclasses import dataclass

from spp.config import require
from spp.methods.iterated_config import IteratedConfig


@dataclass(frozen=True, kw_only=True)
class EliminationConfig(IteratedConfig):
    """Base of the settings of methods whose searches eliminate units."""

    num_repair_samples: int = 256
    """Samples of a measuring that the network is repaired with after it; num_cuts > 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        num = self.num_repair_samples
        require(num >= 1, "num_repair_samples", num, "1 or more", "use 256")
