"""Rows of the record: one per finished member, the unit of every table."""

from collections.abc import Mapping
from typing import Any

from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.store.store import Store

Row = dict[str, Any]

_OWN_COLUMNS = ("seed", "method", "method.preset", "pipeline", "model", "model.name", "data", "stage")
"""Words that a row tells of in a column of its own; so it does of those of the budget."""


def member_rows(store: Store, plan: Plan) -> list[Row]:
    """One row per finished member of a sweep, in the order of its points and budgets.

    Sizes are counts (macs per image, params); accuracies are percentages with their number of test images;
    `search_seconds` is shared by `num_members_of_search` members. `variant` has the words that not all points have and
    no other column tells of.
    """
    rows = []
    variants = _variants(plan)
    for point in plan.points:
        for stage in point.stages:
            if stage.kind == "finetune" and store.is_done(stage.kind, stage.key):
                rows.append(_member_row(store, point.name, variants[point.name], point.meta, stage))
    return rows


def _variants(plan: Plan) -> dict[str, str]:
    """By name of the point, what distinguishes it beside the columns of its rows."""
    common = set.intersection(*(set(point.overrides) for point in plan.points))
    return {
        point.name: " ".join(word for word in point.overrides if word not in common and not _has_own_column(word))
        for point in plan.points
    }


def _has_own_column(word: str) -> bool:
    field = word.lstrip("+").partition("=")[0]
    return field in _OWN_COLUMNS or field.split(".")[0] == "budget"


def _member_row(store: Store, name: str, variant: str, meta: Mapping[str, Any], stage: Stage) -> Row:
    summary = store.summary(stage.kind, stage.key)
    family = stage.inputs["family"]
    # A search for one budget hands out its member itself; others end in an order, which is then walked.
    search, dense = family.inputs.get("path", family), family.inputs["dense"]
    searching = [store.summary(stage.kind, stage.key) for stage in dict.fromkeys((search, family))]
    dense_summary = store.summary(dense.kind, dense.key)
    provenance = store.provenance(stage.kind, stage.key)
    return {
        "point": name,
        "method": meta["method"],
        "preset": meta["preset"],
        "variant": variant,
        "model": meta["model"],
        "data": meta["data"],
        "seed": meta["seed"],
        "budget_kind": summary["budget"]["kind"],
        "budget_asked": summary["budget"]["value"],
        "macs": summary["macs"],
        "params": summary["params"],
        "dense_macs": dense_summary["macs"],
        "dense_params": dense_summary["params"],
        "dense_top1": dense_summary["test"]["top1"],
        "top1_before": summary["test_before"]["top1"],
        "top1": summary["test"]["top1"],
        "val_top1": summary["val"]["top1"],
        "num_test_images": summary["test"]["num_images"],
        "epochs_search": sum(part["epochs"] for part in searching),
        "epochs_finetune": summary["epochs"],
        "search_seconds": sum(part["seconds"] for part in searching),
        "search_gpu_seconds": sum(part["gpu_seconds"] for part in searching),
        "num_members_of_search": len(searching[-1]["members"]),
        "finetune_seconds": summary["seconds"],
        "finetune_gpu_seconds": summary["gpu_seconds"],
        "device": summary["device"],
        "key": stage.key,
        "search_key": search.key,
        "dense_key": dense.key,
        "git_commit": (provenance.get("git") or {}).get("commit"),
    }
