"""How well members and their dense network do on the data that the path was found with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.data.module import DataModule
from spp.deploy.folder import ORIGIN_FILE, read_origin
from spp.store.store import Store
from spp.structure.inputs import call
from spp.tasks.config import TaskConfig
from spp.tasks.registry import build_task
from spp.tasks.task import Task


@dataclass(frozen=True)
class OpenedData:
    """Data and task of a finished sweep, as its `measure` stages have them."""

    data: DataModule
    task: Task

    def inputs(self) -> Iterator[Tensor]:
        """Batches of what a network is called with, from the validation split."""
        for batch in self.data.val_dataloader():
            inputs = self.task.inputs(batch)
            yield inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))

    @torch.inference_mode()
    def measure(self, network: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
        """The task's metrics over the test set, as the record holds them (Task.describe)."""
        evaluator = self.task.evaluator()
        for batch in self.data.test_dataloader():
            inputs = self.task.inputs(batch)
            outputs = call(network, inputs) if isinstance(network, torch.nn.Module) else network(inputs)
            evaluator.update(outputs, batch)
        return self.task.describe(evaluator.compute(), evaluator.num_samples)


def open_measured_data(store: Store, dense_key: str) -> tuple[OpenedData, dict[str, dict[str, Any]]] | None:
    """The data with which a dense network was measured, and what came out; None if it has not been.

    Raises:
        ValueError: one line, if the data are not where they were.
    """
    for ref in store.find_stages(""):
        if ref.kind != "measure" or not store.is_done(ref.kind, ref.key):
            continue
        spec = store.spec(ref.kind, ref.key)
        member = spec["inputs"]["member"]
        if "budget" not in spec["config"] and member["key"] == dense_key:
            metrics: dict[str, dict[str, Any]] = store.summary(ref.kind, ref.key)["metrics"]["test"]
            return _open(spec), metrics
    return None


def _open(spec: Mapping[str, Any]) -> OpenedData:
    config, runtime = spec["config"], spec["runtime"]
    data = open_data(
        DataConfig.from_spec(config["data"], "data"),
        runtime.get("data", {}),
        batch_size=runtime["measure_batch_size"],
        augment=config["augment"],
        seed=0,
        num_workers=0,
    )
    return OpenedData(
        data, build_task(TaskConfig.from_spec(config["task"], "task"), runtime.get("task", {}), data.facts)
    )


def dense_key_of(store: Store, where: Path) -> str | None:
    """The dense stage from which a member comes, by its folder or its file in a store; None if nothing says it."""
    if (where / ORIGIN_FILE).is_file():
        key = read_origin(where).get("stages", {}).get("dense")
        return None if key is None else str(key)
    if not where.absolute().is_relative_to(store.root.absolute() / "stages"):
        return None
    stage = where.absolute().parents[1]
    ref = {"kind": stage.parent.name, "key": stage.name}
    while ref["kind"] != "dense":
        if not store.is_done(ref["kind"], ref["key"]):
            return None
        inputs = store.spec(ref["kind"], ref["key"])["inputs"]
        found = next((inputs[role] for role in ("dense", "family", "member", "path") if role in inputs), None)
        if found is None:
            return None
        ref = found
    return str(ref["key"])
