"""Stage `measure`: a network is measured; no other stage looks at the test set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spp.stages import measure_language
from spp.stages.context import StageRun
from spp.stages.evaluation import evaluate, evaluate_all
from spp.stages.member import FILE_NAME, describe_member, load_member, member_file
from spp.stages.opening import load_dense, load_dense_of, open_samples

FINAL, REPAIRED, CUT = "final", "repaired", "cut"
"""States of a member: as it was handed over, re-fitted in closed form and not trained on, as it was cut."""


def run(stage: StageRun) -> dict[str, Any]:
    """Measure the dense network, or a member, on the validation split and on the test set.

    A member is also measured as it was cut and as it was repaired, and compared with the dense network.
    """
    stage.leave_to_leader()
    if "tokens" in stage.spec["inputs"]:
        return measure_language.run(stage)
    data, task = open_samples(stage, stage.runtime.measure_batch_size, stage.config["augment"], seed=0)
    if "budget" not in stage.config:
        dense = load_dense_of(stage, "member")
        summary = stage.input_summary("member")
        about = {name: summary[name] for name in ("macs", "params")}
        loaders = {"test": data.test_dataloader(), "val": data.val_dataloader()}
        metrics = {name: evaluate(dense, loader, task, stage) for name, loader in loaders.items()}
    else:
        files = _files(stage)
        about = _about(stage, files[FINAL])
        networks = {state: load_member(file, runtime=stage.runtime.model) for state, file in files.items()}
        dense = load_dense(stage, _input_of(stage, stage.spec["inputs"]["reference"], "member"))
        on_test = evaluate_all(networks, data.test_dataloader(), task, stage, dense)
        on_val = evaluate_all(networks, data.val_dataloader(), task, stage, dense)
        metrics = {"test": on_test[FINAL], "val": on_val[FINAL]}
        for state, name in ((CUT, "before"), (REPAIRED, "repaired")):
            if state in files:
                metrics |= {name: on_test[state], f"val_{name}": on_val[state]}
    return {"task": task.name, "headline": task.headline, **about, "metrics": metrics}


def _files(stage: StageRun) -> dict[str, Path]:
    """The files of a member by its states, the final one first; the others only where they are other networks."""
    made_by: Mapping[str, str] = stage.spec["inputs"]["member"]
    found: dict[str, Mapping[str, str]] = {}
    for kind, state in (("finetune", FINAL), ("repair", REPAIRED)):
        if made_by["kind"] == kind:
            found[state if found else FINAL] = made_by
            made_by = _input_of(stage, made_by, "family")
    found[CUT if found else FINAL] = made_by
    return {state: _file_of(stage, ref) for state, ref in found.items()}


def _file_of(stage: StageRun, ref: Mapping[str, str]) -> Path:
    name = FILE_NAME if ref["kind"] == "finetune" else member_file(stage.config["budget"]["value"])
    return stage.store.artifacts_dir(ref["kind"], ref["key"]) / name


def _about(stage: StageRun, file: Path) -> dict[str, Any]:
    description = describe_member(file)
    reference = stage.input_summary("reference")
    return {
        "budget": stage.config["budget"],
        **{name: description[name] for name in ("macs", "params", "widths")},
        "dense": {name: reference[name] for name in ("macs", "params")},
    }


def _input_of(stage: StageRun, ref: Mapping[str, str], role: str) -> Mapping[str, str]:
    found: Mapping[str, str] = stage.store.spec(ref["kind"], ref["key"])["inputs"][role]
    return found
