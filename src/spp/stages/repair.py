"""Stage `repair`: every member of a family is re-fitted to the dense network in closed form, without labels."""

import time
from typing import Any

from spp.plan.config import RepairConfig
from spp.stages.context import StageRun
from spp.stages.devices import find_device
from spp.stages.member import describe_member, load_member, write_member
from spp.stages.opening import load_dense_of, open_samples
from spp.structure.repair import repair


def run(stage: StageRun) -> dict[str, Any]:
    """Write every member anew, under the name that it has in the family."""
    stage.leave_to_leader()
    config = RepairConfig.from_spec(stage.config["repair"], "repair")
    data, task = open_samples(stage, config.batch_size, stage.config["augment"], stage.config["seed"])
    batches = [task.inputs(batch) for batch in data.some_train_dataloader(config.num_samples)]
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
        repaired = repair(small, dense, batches, kind=config.kind, frozen=description.get("sparse", ()))
        write_member(stage.artifacts / file.name, repaired.cpu(), description)
    stage.progress(len(members), len(members), "members", "repairing")
    return {
        "members": members,
        "dense": family["dense"],
        "num_samples": min(config.num_samples, data.num_train_samples),
        "repair_seconds": time.monotonic() - started,
    }
