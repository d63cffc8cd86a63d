"""How well networks do their task on a whole set of samples."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from spp.stages.context import StageRun
from spp.stages.devices import find_device, to_device
from spp.stages.finite import require_finite_numbers
from spp.structure.inputs import call
from spp.tasks.task import Task

Metrics = dict[str, dict[str, Any]]
"""Metrics by name, as the record holds them (Task.describe)."""


def evaluate(model: nn.Module, loader: DataLoader[Any], task: Task, run: StageRun) -> Metrics:
    """The task's metrics of a network over all samples of a loader.

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    return evaluate_all({"": model}, loader, task, run)[""]


def evaluate_all(
    models: Mapping[str, nn.Module],
    loader: DataLoader[Any],
    task: Task,
    run: StageRun,
    dense: nn.Module | None = None,
) -> dict[str, Metrics]:
    """The task's metrics of several networks, by their names, in one pass over the samples of a loader.

    Args:
        dense: a network whose outputs theirs are compared with, where the task can; None: there is none.

    Raises:
        NotFiniteError: a metric is NaN or infinite.
    """
    device = find_device(run.runtime.accelerator)
    evaluators = {name: task.evaluator() for name in models}
    networks = [*models.values(), *([] if dense is None else [dense])]
    for network in networks:
        network.to(device).eval()
    with torch.inference_mode():
        for index, batch in enumerate(loader):
            on_device = to_device(batch, device)
            inputs = task.inputs(on_device)
            wanted = None if dense is None else call(dense, inputs)
            for model, evaluator in zip(models.values(), evaluators.values(), strict=True):
                outputs = call(model, inputs)
                evaluator.update(outputs, on_device)
                if wanted is not None:
                    evaluator.compare(outputs, wanted)
            run.progress(index + 1, len(loader), "batches", "measuring")
    for network in networks:
        network.cpu()
    found = {}
    for name, evaluator in evaluators.items():
        values = evaluator.compute()
        require_finite_numbers(values, f"{run.kind}: metrics")
        found[name] = task.describe(values, evaluator.num_samples)
    return found
