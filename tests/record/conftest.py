"""Stores that nothing was run for: stages of every pipeline, with summaries as the stages write them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.store import Store

DATA = {"name": "digits", "img_size": 32, "fingerprint": {"splits": {"train": 1350, "test": 297}}}
SIZES = {"macs": 100, "params": 40}
SECONDS = {"dense": 7.0, "update": 30.0, "search": 20.0, "prune": 5.0, "finetune": 9.0, "measure": 1.0}
EPOCHS = {"dense": 3, "update": 10, "search": 12, "prune": 4, "finetune": 6}


def accuracy(value: float) -> dict[str, Any]:
    """Metrics of a classifier."""
    shared = {"unit": "%", "better": "higher", "count": 297, "of": "images"}
    return {
        "top1": {"value": value, **shared, "label": "top-1"},
        "top5": {"value": value + 1, **shared, "label": "top-5"},
    }


@pytest.fixture
def make_point() -> Callable[..., Point]:
    """Makes a point of members at budgets: kind of its search, whether that is walked, whether members are trained."""

    def make(
        kind: str = "update",
        *,
        is_walked: bool = True,
        is_trained: bool = True,
        budgets: Sequence[float] = (0.5, 0.3),
        task: Mapping[str, Any] = {"name": "classification"},
        seed: int = 0,
        words: Sequence[str] = (),
    ) -> Point:
        shared = {"task": task, "model": {"name": "vit"}, "data": DATA, "seed": seed}
        method = {"name": "spp" if kind == "update" else "upop"}
        measured = {"task": task, "data": DATA, "recipe": {"batch_size": 64, "augment": {}}}
        dense = Stage("dense", {**shared, "recipe": {"epochs": EPOCHS["dense"]}})
        reference = Stage("measure", measured, {"member": dense})
        finals = []
        for value in budgets:
            budget = {"kind": "macs", "values": list(budgets) if is_walked else [value]}
            one = {} if is_walked else {"budget": budget}
            family = Stage(kind, {**shared, **one, "method": method, "recipe": {"epochs": 12}}, {"dense": dense})
            if is_walked:
                chosen = {"method": {"name": method["name"], "score": "entry"}}
                family = Stage("prune", {**shared, **chosen, "budget": budget}, {"dense": dense, "path": family})
            size = {"kind": "macs", "value": value}
            member = family
            if is_trained:
                recipe = {"batch_size": 64, "lr": 0.01, "epochs": EPOCHS["finetune"]}
                member = Stage("finetune", {**shared, "budget": size, "recipe": recipe}, {"family": family})
            finals.append(Stage("measure", {**measured, "budget": size}, {"member": member, "reference": reference}))
        meta = {"method": method["name"], "preset": None, "model": "vit", "data": "digits", "seed": seed}
        name = " ".join([method["name"], str(seed), str(is_trained), *words])
        return Point(name, tuple(words), (reference, *finals), meta)

    return make


def summary_of(stage: Stage) -> dict[str, Any]:
    """What a stage writes down when it has finished."""
    cost = {"seconds": SECONDS[stage.kind], "gpu_seconds": 0.0, "device": "CPU"}
    if stage.kind != "measure":
        members = {"members": {"0.5": {}, "0.3": {}}} if stage.kind in ("prune", "search") else {}
        return {**cost, **members, "epochs": EPOCHS[stage.kind]}
    common = {**cost, "task": "classification", "headline": "top1"}
    if "reference" not in stage.inputs:
        return {**common, **SIZES, "metrics": {"test": accuracy(97.0), "val": accuracy(96.0)}}
    budget = stage.config["budget"]
    before = {"before": accuracy(60.0)} if stage.inputs["member"].kind == "finetune" else {}
    metrics = {"test": accuracy(90.0 + budget["value"]), "val": accuracy(89.0), **before}
    sizes = {name: count * budget["value"] for name, count in SIZES.items()}
    return {**common, **sizes, "widths": {}, "budget": budget, "dense": SIZES, "metrics": metrics}


@pytest.fixture
def finish() -> Callable[[Store, Plan], None]:
    """Finishes all stages of a plan."""

    def finish_all(store: Store, plan: Plan) -> None:
        for stage in plan.stages.values():
            store.put_spec(stage)
            store.write_provenance(stage.kind, stage.key, {"git": {"commit": "c0ffee"}})
            assert store.begin(stage.kind, stage.key) is not None
            store.finish(stage.kind, stage.key, summary_of(stage))

    return finish_all
