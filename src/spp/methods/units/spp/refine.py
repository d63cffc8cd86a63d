"""The path down to a size, and from there the order in which the elimination takes what is left."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import absolute_size, join
from spp.dynamics.path import SolutionPath
from spp.methods.bundles import take_gradients
from spp.methods.elimination.search import EliminationSearch
from spp.methods.search import OrderSearch
from spp.methods.units.spp.config import SPPConfig


class RefinedSearch(OrderSearch):
    """A search for a path, and behind its steps an elimination on the network that is cut by it and repaired.

    The first of the further steps measure nothing: they keep the samples of that repair.

    Args:
        path: the search for the path.
        config: its settings, and those of the elimination.
        batch_size: samples of a step.

    Raises:
        ValueError: the network cannot be as small as the elimination shall begin.
    """

    def __init__(self, path: OrderSearch, config: SPPConfig, batch_size: int) -> None:
        settings, share, masked = config.elimination, config.refine_share, path.masked
        absolute_size(path.pairs, "macs", share, config.min_units, field="method.refine_from")
        num_keeping_steps, num_measuring_steps = config.num_refining_steps(batch_size)
        super().__init__(masked, path.num_steps + num_keeping_steps + num_measuring_steps)
        self.config, self.path = config, path
        self.elimination = EliminationSearch(settings, masked, num_measuring_steps, start_share=share)
        self._first_measuring = path.num_steps + num_keeping_steps

    @property
    def samples_targets(self) -> bool:
        return self.path.samples_targets if self._is_on_path else True

    def on_epoch_start(self, epoch: int, num_epochs: int) -> None:
        self.path.on_epoch_start(epoch, num_epochs)

    def before_forward(self) -> None:
        if self._is_on_path:
            self.path.before_forward()
        elif self.num_steps_taken < self._first_measuring:
            self.elimination.keep_inputs()
        else:
            self.elimination.before_forward()

    def after_backward(self) -> None:
        if self._is_on_path:
            self.path.after_backward()
        elif self.num_steps_taken < self._first_measuring:
            take_gradients(self.masks)
        else:
            self.elimination.after_backward()
        self.num_steps_taken += 1
        if self.num_steps_taken == self._first_measuring:
            self._cut()

    def order(self, meta: Mapping[str, Any]) -> SolutionPath:
        path = self._path(meta)
        kept = self._kept(path)
        places = join(self.pairs, self.elimination.scores())
        best = places.argsort(descending=True)[: int(kept.sum())]
        about = {"by": self.config.refine, "from": self.config.refine_share}
        return path.refined(best, **self._choice, about=about)

    def metrics(self) -> dict[str, float]:
        return self.path.metrics() if self._is_on_path else {}

    def progress_note(self) -> str:
        return self.path.progress_note() if self._is_on_path else f"refined by {self.config.refine}"

    def summary(self) -> dict[str, Any]:
        """That of the path, and the steps behind it."""
        return {**self.path.summary(), "num_refining_steps": self.num_steps - self.path.num_steps}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "path": self.path.state_dict(),
            "elimination": self.elimination.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self.path.load_state_dict(state["path"])
        self.elimination.load_state_dict(state["elimination"])

    @property
    def _is_on_path(self) -> bool:
        return self.num_steps_taken < self.path.num_steps

    @property
    def _choice(self) -> dict[str, Any]:
        return {"scope": self.config.scope, "score": self.config.score, "min_units": self.config.min_units}

    def _path(self, meta: Mapping[str, Any]) -> SolutionPath:
        path = self.path.order(meta)
        assert isinstance(path, SolutionPath)
        return path

    def _kept(self, path: SolutionPath) -> Tensor:
        """The units with which the elimination begins, (num_units,) bool."""
        return join(self.pairs, path.masks(macs=self.config.refine_share, **self._choice)).bool()

    def _cut(self) -> None:
        """Take the units that the path gives up down to the size out of the network, and repair it."""
        path = self._path({})
        order = path.unit_numbers(**self._choice)
        gone = order[~self._kept(path)[order]]
        self.masked.set_masks({name: torch.ones_like(mask) for name, mask in self.masks.items()})
        self.elimination.start_without(gone.flip(0))
