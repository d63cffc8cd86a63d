"""Stage `prune`: the path is walked from dense to sparse while the weights train; a member is kept at each budget."""

import time
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from spp.dynamics.budget import sizes_of
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.ranking import open_path
from spp.methods.registry import load_method
from spp.models.weights import WEIGHTS_FILE, load_weights
from spp.plan.config import BudgetConfig
from spp.plan.recipes import PruneConfig
from spp.plan.walk import walked_fraction
from spp.stages.context import StageRun
from spp.stages.member import member_file, save_member
from spp.stages.opening import DenseNetwork, cost_of_dense, masked_architecture, method_of, open_dense
from spp.stages.training import WeightTraining, train
from spp.structure.compact import compact
from spp.structure.masked import MaskedModel
from spp.structure.tokens import drop_tokens
from spp.tasks.task import Batch


class BudgetWalk:
    """Which size the network has at which step, and when a budget's member is taken.

    The size is chosen again every `interval` steps and then stays for that long. No budget is jumped over: a
    selection that would pass one stops at it, and its member is taken when the interval ends.

    Args:
        sizes: the budgets as fractions of the dense model, in any order.
        num_steps: training steps of the walk; the smallest budget is reached when the last interval begins.
        largest: the size with all units, less than 1 where tokens have left.
    """

    def __init__(self, sizes: list[float], num_steps: int, interval: int, shape: str, largest: float = 1.0) -> None:
        self.pending = sorted(sizes, reverse=True)
        self.smallest = self.pending[-1]
        self.num_walk_steps = max(1, num_steps - interval)
        self.interval = interval
        self.shape = shape
        self.current = self.largest = largest

    def advance(self, step: int) -> tuple[float, list[float]]:
        """The size from `step` on, and the budgets whose members are to be taken first, at the size until now."""
        taken = [size for size in self.pending if size >= self.current]
        self.pending = self.pending[len(taken) :]
        share = walked_fraction(self.shape, step / self.num_walk_steps)
        wanted = self.largest - (self.largest - self.smallest) * share
        self.current = max([wanted, *self.pending]) if self.pending else self.smallest
        return self.current, taken

    def state_dict(self) -> dict[str, Any]:
        """Where the walk is."""
        return {"pending": list(self.pending), "current": self.current}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.pending, self.current = list(state["pending"]), state["current"]


class TakenMembers:
    """The members that were taken so far: their files and what the summary says of them.

    Attributes:
        members: by size as the user wrote it: file, macs, params, units.
        largest: the size with all units as a fraction of the dense model.
    """

    def __init__(self, stage: StageRun, model: nn.Module, path: OrderedUnits, budget: BudgetConfig) -> None:
        self._stage, self._model, self._kind = stage, model, budget.kind
        self._path = path.rounded_to(budget.multiple_of, budget.form)
        self._config = method_of(stage)
        self._method = load_method(self._config.name)
        self._architecture = masked_architecture(stage)
        self.members: dict[str, Any] = {}
        self.largest = path.budget_range(budget.kind)[1] / path.dense_total(budget.kind)

    def select(self, size: float) -> dict[str, Tensor]:
        """The masks of the member at a size."""
        return self._method.select(self._config, self._path, self._kind, size)

    def cut(self, size: float) -> tuple[dict[str, Tensor], nn.Module, dict[str, Any]]:
        """The member at a size with the weights of this moment: its masks, the network, what its header must say.

        Raises:
            ValueError: if it cannot be cut.
        """
        masks = self.select(size)
        small = compact(self._model, masks).cpu().eval()
        return masks, small, self._method.finish_member(self._config, small, self._stage.config["seed"])

    def take(self, size: float) -> None:
        """Write the member at a size with the weights of this moment; one rank does it for all."""
        if not self._stage.ranks.is_leader:
            return
        masks, small, header = self.cut(size)
        file = self._stage.artifacts / member_file(size)
        value = {"kind": self._kind, "value": size}
        if self._path.multiple_of > 1:
            value["multiple_of"] = self._path.multiple_of
        if self._path.form != "free":
            value["form"] = self._path.form
        cost = save_member(file, small, masks, self._path.pairs, self._architecture, budget=value, **header)
        counts = sizes_of(cost, masks)
        self.members[f"{size:.10g}"] = {"file": file.name, **counts}
        self._stage.log({"budget": size, **counts})


class PathWalk(WeightTraining):
    """Trains the weights under masks that follow the path, and hands out a member at each budget.

    Args:
        opened: the network, its data and its task.
        recipe: of the walk.
        run: of the stage.
        taken: chooses the masks and takes the members.
        sizes: every budget as a fraction of the dense model -> as the user wrote it.
    """

    def __init__(
        self,
        opened: DenseNetwork,
        recipe: PruneConfig,
        run: StageRun,
        *,
        taken: TakenMembers,
        sizes: Mapping[float, float],
    ) -> None:
        num_steps = recipe.num_steps(opened.data.steps_per_epoch)
        masked = MaskedModel(opened.model, opened.pairs)
        super().__init__(masked, recipe, opened.task, num_steps, run, opened.teacher)
        self.masked = masked
        self.taken = taken
        self.sizes = sizes
        self.walk = BudgetWalk(list(sizes), num_steps, recipe.interval, recipe.shape, taken.largest)
        for mask in self.masked.masks.values():
            mask.requires_grad_(False)

    def trained_network(self) -> nn.Module:
        """Only the weights are trained; the masks are set."""
        dense: nn.Module = self.masked.model
        return dense

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Choose the masks again when an interval begins."""
        if self.global_step % self.walk.interval == 0:
            size, taken = self.walk.advance(self.global_step)
            if taken:
                self.require_finite()
            for budget in taken:
                self.taken.take(self.sizes[budget])
            self.masked.set_masks(self.taken.select(self.sizes.get(size, size)))
            self.run.progress(self.global_step, self.num_steps, "steps", f"at {100 * size:.0f} % of dense")

    def on_train_end(self) -> None:
        """Take the members that are left; with a walk of many intervals that is the smallest one."""
        for budget in self.walk.pending:
            self.masked.set_masks(self.taken.select(self.sizes[budget]))
            self.taken.take(self.sizes[budget])
        super().on_train_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Where the walk is, and which members are taken; their files go with the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["walk"] = {**self.walk.state_dict(), "members": dict(self.taken.members)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        super().on_load_checkpoint(checkpoint)
        self.walk.load_state_dict(checkpoint["walk"])
        self.taken.members = dict(checkpoint["walk"]["members"])


def run(stage: StageRun) -> dict[str, Any]:
    """Walk the path once and write a member for every budget."""
    recipe = PruneConfig.from_spec(stage.config["recipe"], "prune")
    budget = BudgetConfig.from_spec(stage.config["budget"], "budget")
    opened = open_dense(stage, recipe)
    path = open_path(stage.input_artifacts("path"))
    searched = stage.input_artifacts("path") / WEIGHTS_FILE
    if searched.exists():  # the search has trained the weights, and the order belongs to these
        load_weights(opened.model, load_file(searched), "the search stage")
    drop_tokens(opened.model, path.tokens)
    total = path.dense_total(budget.kind)
    sizes = {size if size <= 1 else size / total: size for size in budget.values}
    taken = TakenMembers(stage, opened.model, path, budget)

    started = time.monotonic()
    if recipe.is_empty:
        stage.leave_to_leader()
        for size in budget.values:
            taken.take(size)
    else:
        for size in budget.values:
            taken.cut(size)  # a member that cannot be is refused before hours of training
        train(PathWalk(opened, recipe, stage, taken=taken, sizes=sizes), opened.data, stage)
    return {
        "members": taken.members,
        "epochs": recipe.epochs,
        "walk_seconds": stage.fit_seconds or time.monotonic() - started,
        "dense": cost_of_dense(stage),
    }
