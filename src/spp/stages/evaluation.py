"""How well a network does its task on a whole set of samples."""

from collections.abc import Mapping, Sized
from typing import Any

import pytorch_lightning as pl
from torch import nn

from spp.stages.context import StageRun
from spp.stages.finite import require_finite_numbers
from spp.stages.fitting import build_trainer, known_warnings
from spp.structure.inputs import call
from spp.tasks.task import Batch, Task

Metrics = dict[str, dict[str, Any]]
"""Metrics by name, as the record holds them (Task.describe)."""


def evaluate(model: nn.Module, loader: Sized, task: Task, run: StageRun) -> Metrics:
    """The task's metrics of a network over all samples of a loader.

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    return evaluate_all({"": model}, loader, task, run)[""]


def evaluate_all(
    models: Mapping[str, nn.Module], loader: Sized, task: Task, run: StageRun, dense: nn.Module | None = None
) -> dict[str, Metrics]:
    """The task's metrics of several networks, by their names, in one pass over the samples of a loader.

    Args:
        dense: a network whose outputs theirs are compared with, where the task can; None: there is none.

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    module = _Evaluation(models, task, len(loader), run, dense)
    trainer = build_trainer(run.runtime, precision="32-true", inference_mode=True)
    with known_warnings():
        trainer.test(module, dataloaders=loader, verbose=False)
    found = {}
    for name, evaluator in module.evaluators.items():
        values = evaluator.compute()
        require_finite_numbers(values, f"{run.kind}: metrics")
        found[name] = task.describe(values, evaluator.num_samples)
    return found


class _Evaluation(pl.LightningModule):
    def __init__(
        self, models: Mapping[str, nn.Module], task: Task, num_batches: int, run: StageRun, dense: nn.Module | None
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models.values())
        self.dense = dense
        self.task = task
        self.num_batches = num_batches
        self.run = run
        self.evaluators = {name: task.evaluator() for name in models}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        inputs = self.task.inputs(batch)
        wanted = None if self.dense is None else call(self.dense, inputs)
        for model, evaluator in zip(self.models, self.evaluators.values(), strict=True):
            outputs = call(model, inputs)
            evaluator.update(outputs, batch)
            if wanted is not None:
                evaluator.compare(outputs, wanted)
        self.run.progress(batch_idx + 1, self.num_batches, "batches", "measuring")
