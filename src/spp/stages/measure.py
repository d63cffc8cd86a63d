"""Stage `measure`: a network is measured; no other stage looks at the test set."""

from pathlib import Path
from typing import Any

from torch import nn

from spp.stages import measure_language
from spp.stages.context import StageRun
from spp.stages.evaluation import evaluate
from spp.stages.member import FILE_NAME, describe_member, load_member, member_file
from spp.stages.opening import load_dense_of, open_samples


def run(stage: StageRun) -> dict[str, Any]:
    """Measure the dense network, or a member, on the validation split and on the test set."""
    stage.leave_to_leader()
    if "tokens" in stage.spec["inputs"]:
        return measure_language.run(stage)
    recipe = stage.config["recipe"]
    data, task = open_samples(stage, recipe["batch_size"], recipe["augment"], seed=0)
    network, about = _member(stage) if "budget" in stage.config else _dense(stage)
    metrics = {"test": evaluate(network, data.test_dataloader(), task, stage)}
    cut = _file_before_training(stage)
    if cut is None:
        metrics["val"] = evaluate(network, data.val_dataloader(), task, stage)
    else:
        metrics["val"] = stage.input_summary("member")["val"]  # the finetuning has the same samples
        before = load_member(cut, runtime=stage.runtime.model)
        metrics["before"] = evaluate(before, data.test_dataloader(), task, stage)
    return {"task": task.name, "headline": task.headline, **about, "metrics": metrics}


def _dense(stage: StageRun) -> tuple[nn.Module, dict[str, Any]]:
    summary = stage.input_summary("member")
    return load_dense_of(stage, "member"), {name: summary[name] for name in ("macs", "params")}


def _member(stage: StageRun) -> tuple[nn.Module, dict[str, Any]]:
    budget = stage.config["budget"]
    is_trained = stage.spec["inputs"]["member"]["kind"] == "finetune"
    file = stage.input_artifacts("member") / (FILE_NAME if is_trained else member_file(budget["value"]))
    description = describe_member(file)
    reference = stage.input_summary("reference")
    about = {
        "budget": budget,
        **{name: description[name] for name in ("macs", "params", "widths")},
        "dense": {name: reference[name] for name in ("macs", "params")},
    }
    return load_member(file, runtime=stage.runtime.model), about


def _file_before_training(stage: StageRun) -> Path | None:
    """The member as it was cut, if it was trained on since."""
    member = stage.spec["inputs"]["member"]
    if member["kind"] != "finetune":
        return None
    family = stage.store.spec(member["kind"], member["key"])["inputs"]["family"]
    return stage.store.artifacts_dir(family["kind"], family["key"]) / member_file(stage.config["budget"]["value"])
