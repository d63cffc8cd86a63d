"""Settings of searches that measure several times; see iterated.py."""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.ranking import RankingConfig


@dataclass(frozen=True, kw_only=True)
class IteratedConfig(RankingConfig):
    """Base of the settings of methods whose searches measure several times, on answers of the network's own."""

    trains_weights: ClassVar[bool] = False
    samples_targets: ClassVar[bool] = True

    num_cuts: int = 1
    """Times that the search measures; units go after each of them, in equal ratios of what is left, at last all."""
    cut_to: float = 0.1
    """MACs, as a share of the dense network's, that would be left where num_cuts cuts in equal ratios end."""
    num_samples: int = 1024
    """Samples that each measuring looks at; further ones of its steps are passed over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_cuts >= 1, "num_cuts", self.num_cuts, "1 or more", "use 1")
        require(0 < self.cut_to < 1, "cut_to", self.cut_to, "a number in (0, 1)", "use 0.1")
        require(self.num_samples >= 1, "num_samples", self.num_samples, "1 or more", "use 1024")

    @property
    def max_search_epochs(self) -> int | None:  # type: ignore[override]  # of other methods it is the same for all
        """One pass over the samples for each measuring."""
        return self.num_cuts
