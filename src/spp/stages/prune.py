"""Stage `prune`: the path is walked from dense to sparse while the weights train; a member is kept at each budget."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spp.dynamics.path import SolutionPath
from spp.methods.registry import method_module, read_method
from spp.plan.config import BudgetConfig, PruneConfig
from spp.stages.context import StageRun
from spp.stages.dense import open_dense
from spp.stages.member import save_member
from spp.stages.training import Classifier, fit
from spp.structure.compact import compact
from spp.structure.masked import MaskedModel


def member_file(size: float) -> str:
    """Name of the artifact that holds the member at a budget."""
    return f"member_{size:.10g}.safetensors"


def walked_fraction(shape: str, time_share: float) -> float:
    """How much of the way from dense to the smallest budget is done after a share of the steps; both in [0, 1]."""
    t = min(1.0, max(0.0, time_share))
    if shape == "sine":
        return math.sin(math.pi * t / 2)
    if shape == "cubic":
        return 1 - (1 - t) ** 3
    if shape == "cosine":
        return (1 - math.cos(math.pi * t)) / 2
    return t


class BudgetWalk:
    """Which size the network has at which step, and when a budget's member is taken.

    The size is chosen again every `interval` steps and then stays for that long. No budget is jumped over: a
    selection that would pass one stops at it, and its member is taken when the interval ends.

    Args:
        sizes: the budgets as fractions of the dense model, in any order.
        num_steps: training steps of the walk; the smallest budget is reached when the last interval begins.
    """

    def __init__(self, sizes: list[float], num_steps: int, interval: int, shape: str) -> None:
        self.pending = sorted(sizes, reverse=True)
        self.smallest = self.pending[-1]
        self.num_walk_steps = max(1, num_steps - interval)
        self.interval = interval
        self.shape = shape
        self.current = 1.0

    def advance(self, step: int) -> tuple[float, list[float]]:
        """The size from `step` on, and the budgets whose members are to be taken first, at the size until now."""
        taken = [size for size in self.pending if size >= self.current]
        self.pending = self.pending[len(taken) :]
        share = walked_fraction(self.shape, step / self.num_walk_steps)
        wanted = 1 - (1 - self.smallest) * share
        self.current = max([wanted, *self.pending]) if self.pending else self.smallest
        return self.current, taken


class FamilyWalk(Classifier):
    """Trains the weights under masks that follow the path, and hands out a member at each budget.

    Args:
        sizes: every budget as a fraction of the dense model -> as the user wrote it.
        take: called with a budget as the user wrote it, while the weights are those of its member.
    """

    def __init__(
        self,
        masked: MaskedModel,
        recipe: PruneConfig,
        num_classes: int,
        num_steps: int,
        run: StageRun,
        *,
        select: Callable[[float], dict[str, Tensor]],
        sizes: Mapping[float, float],
        take: Callable[[float], None],
    ) -> None:
        super().__init__(masked, recipe, num_classes, num_steps, run)
        self.masked = masked
        self.select = select
        self.sizes = sizes
        self.take = take
        self.walk = BudgetWalk(list(sizes), num_steps, recipe.interval, recipe.shape)
        for mask in masked.masks.values():
            mask.requires_grad_(False)

    def trained_network(self) -> nn.Module:
        """Only the weights are trained; the masks are set."""
        dense: nn.Module = self.masked.model
        return dense

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Choose the masks again when an interval begins."""
        if self.global_step % self.walk.interval == 0:
            size, taken = self.walk.advance(self.global_step)
            for budget in taken:
                self.take(self.sizes[budget])
            self.masked.set_masks(self.select(self.sizes.get(size, size)))
            self.run.progress(self.global_step, self.num_steps, "steps", f"at {100 * size:.0f} % of dense")

    def on_train_end(self) -> None:
        """Take the members that are left; with a walk of many intervals that is the smallest one."""
        for budget in self.walk.pending:
            self.masked.set_masks(self.select(self.sizes[budget]))
            self.take(self.sizes[budget])
        super().on_train_end()


def run(stage: StageRun) -> dict[str, Any]:
    """Walk the path once and write a member for every budget."""
    recipe = PruneConfig.read(stage.config["recipe"], "prune")
    method = read_method(stage.config["method"])
    choose = method_module(stage.config["method"]["name"]).select
    budget = BudgetConfig.read(stage.config["budget"], "budget")
    data, model, pairs = open_dense(stage, recipe)
    path = SolutionPath.load(stage.input_artifacts("path"))

    total = path.budget_range(budget.kind)[1]
    sizes = {size if size <= 1 else size / total: size for size in budget.values}
    architecture = stage.input_summary("dense")["architecture"]
    members: dict[str, Any] = {}

    def select(size: float) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = choose(method, path, budget.kind, size)
        return masks

    def take(size: float) -> None:
        masks = select(size)
        small = compact(model, masks).cpu().eval()
        name = member_file(size)
        value = {"kind": budget.kind, "value": size}
        cost = save_member(stage.artifacts / name, small, masks, path.pairs, architecture, budget=value)
        units = sum(int(mask.sum()) for mask in masks.values())
        members[f"{size:.10g}"] = {"file": name, "macs": cost.macs, "params": cost.params, "units": units}
        stage.log({"budget": size, "macs": cost.macs, "params": cost.params, "units": units})

    started = time.monotonic()
    if recipe.epochs == 0:
        for size in budget.values:
            take(size)
    else:
        masked = MaskedModel(model, pairs)
        num_steps = recipe.epochs * data.steps_per_epoch
        walk = FamilyWalk(masked, recipe, data.num_classes, num_steps, stage, select=select, sizes=sizes, take=take)
        fit(walk, data, stage)
    return {
        "members": members,
        "epochs": recipe.epochs,
        "walk_seconds": time.monotonic() - started,
        "dense": {kind: path.budget_range(kind)[1] for kind in ("macs", "params")},
    }
