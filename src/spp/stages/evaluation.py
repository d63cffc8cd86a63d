"""How well a network does its task on a whole set of samples."""

from collections.abc import Sized
from typing import Any

import pytorch_lightning as pl
from torch import nn

from spp.stages.context import StageRun
from spp.stages.finite import require_finite_numbers
from spp.stages.fitting import build_trainer, known_warnings
from spp.structure.inputs import call
from spp.tasks.task import Batch, Task


def evaluate(model: nn.Module, loader: Sized, task: Task, run: StageRun) -> dict[str, dict[str, Any]]:
    """The task's metrics of a network over all samples of a loader, as the record holds them (Task.describe).

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    module = _Evaluation(model, task, len(loader), run)
    trainer = build_trainer(run.runtime, precision="32-true", inference_mode=True)
    with known_warnings():
        trainer.test(module, dataloaders=loader, verbose=False)
    values = module.evaluator.compute()
    require_finite_numbers(values, f"{run.kind}: metrics")
    return task.describe(values, module.evaluator.num_samples)


class _Evaluation(pl.LightningModule):
    def __init__(self, model: nn.Module, task: Task, num_batches: int, run: StageRun) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.num_batches = num_batches
        self.run = run
        self.evaluator = task.evaluator()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluator.update(call(self.model, self.task.inputs(batch)), batch)
        self.run.progress(batch_idx + 1, self.num_batches, "batches", "measuring")
