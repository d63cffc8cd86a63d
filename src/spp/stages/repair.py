"""Stage `repair`: every member of a family is re-fitted to the dense network in closed form, without labels."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from spp.data.module import DataModule
from spp.methods.units.snapvit.sweeps import swept
from spp.models.build import masks_per_head
from spp.plan.config import RepairConfig
from spp.stages.context import StageRun
from spp.stages.devices import find_device
from spp.stages.member import describe_member, load_member, write_member
from spp.stages.opening import load_dense_of, open_samples
from spp.structure.find import find_pairs
from spp.structure.inputs import Inputs
from spp.structure.repair import repair_in_place
from spp.tasks.task import Task


def repair_batches(data: DataModule, task: Task, num_samples: int) -> list[Inputs]:
    """What a repair looks at: training inputs, drawn by the data's seed."""
    return [task.inputs(batch) for batch in data.some_train_dataloader(num_samples)]


def run(stage: StageRun) -> dict[str, Any]:
    """Write every member anew, under the name that it has in the family."""
    stage.leave_to_leader()
    config = RepairConfig.from_spec(stage.config["repair"], "repair")
    data, task = open_samples(stage, config.batch_size, stage.config["augment"], stage.config["seed"])
    batches = repair_batches(data, task, config.num_samples)
    device = find_device(stage.runtime.accelerator)
    dense = load_dense_of(stage, "dense").to(device)
    family = stage.input_summary("family")
    members: dict[str, Any] = family["members"]

    started = time.monotonic()
    for number, member in enumerate(members.values()):
        stage.progress(number, len(members), "members", "repairing")
        file = stage.input_artifacts("family") / member["file"]
        description = describe_member(file)
        small = load_member(file, runtime=stage.runtime.model).to(device)
        if config.starts_from_dense:
            small.load_state_dict(_swept(dense, description, batches, config.kind).state_dict())
        else:
            repair_in_place(small, dense, batches, kind=config.kind, frozen=description.get("sparse", ()))
        write_member(stage.artifacts / file.name, small.cpu(), description)
    stage.progress(len(members), len(members), "members", "repairing")
    return {
        "members": members,
        "dense": family["dense"],
        "num_samples": min(config.num_samples, data.num_train_samples),
        "repair_seconds": time.monotonic() - started,
    }


def _swept(dense: nn.Module, description: Mapping[str, Any], batches: Sequence[Inputs], kind: str) -> nn.Module:
    """The network of a member cut from the dense one and repaired as SnapViT does it."""
    pairs = find_pairs(dense, per_head=masks_per_head(description["architecture"]))
    masks = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in pairs}
    for name, kept in description["kept"].items():
        masks[name] = torch.zeros_like(masks[name]).index_fill(0, torch.tensor(kept, dtype=torch.int64), True)
    return swept(dense, pairs, masks, batches, kind)
