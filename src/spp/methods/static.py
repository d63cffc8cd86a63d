"""A search that learns nothing from the data: zero steps are enough, and more change nothing."""

from collections.abc import Mapping
from typing import Any

from spp.methods.bundles import take_gradients
from spp.methods.search import RankingSearch


class StaticSearch(RankingSearch):
    """Counts steps and leaves the masks at 1."""

    def after_backward(self) -> None:
        take_gradients(self.masks)
        self.num_steps_taken += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps_taken": self.num_steps_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
