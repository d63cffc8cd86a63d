"""How well a network does its task on a whole set of samples."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from spp.stages.context import StageRun
from spp.stages.devices import find_device, to_device
from spp.stages.finite import require_finite_numbers
from spp.structure.inputs import call
from spp.tasks.task import Task


def evaluate(model: nn.Module, loader: DataLoader[Any], task: Task, run: StageRun) -> dict[str, dict[str, Any]]:
    """The task's metrics of a network over all samples of a loader, as the record holds them (Task.describe).

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    device = find_device(run.runtime.accelerator)
    evaluator = task.evaluator()
    model.to(device).eval()
    with torch.inference_mode():
        for index, batch in enumerate(loader):
            on_device = to_device(batch, device)
            evaluator.update(call(model, task.inputs(on_device)), on_device)
            run.progress(index + 1, len(loader), "batches", "measuring")
        values = evaluator.compute()
    model.cpu()
    require_finite_numbers(values, f"{run.kind}: metrics")
    return task.describe(values, evaluator.num_samples)
