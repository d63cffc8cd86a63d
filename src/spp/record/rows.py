"""Rows of the record: one per finished member, the unit of every table."""

import shlex
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from spp.plan.graph import Point
from spp.plan.spec import Stage
from spp.record.variants import PLACE_WORDS

Row = dict[str, Any]


class Facts(Protocol):
    """What finished stages have written down about themselves: a store, or a copy of its records."""

    def is_done(self, kind: str, key: str) -> bool: ...
    def failure(self, kind: str, key: str) -> dict[str, Any] | None: ...
    def summary(self, kind: str, key: str) -> dict[str, Any]: ...
    def provenance(self, kind: str, key: str) -> dict[str, Any]: ...
    def stage_dir(self, kind: str, key: str) -> Path: ...


class RowMaker:
    """Makes rows from `facts`, reading every file once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._summary = cache(facts.summary)

    def row(self, point: Point, sweep: str, variant: str, stage: Stage) -> Row:
        """The row of the finished member that `stage`, a finetune stage of `point`, has made.

        Sizes are counts (macs per image, params); accuracies are percentages with their number of test images, None
        where they were not recorded; `search_seconds` are those of search and walk, shared by
        `num_members_of_search` members, `walk_seconds` those of the walk alone.
        """
        return {
            "point": point.name,
            "sweep": sweep,
            "command": command(point),
            **identity(point, variant),
            **self._measured(stage),
            **self._cost(stage),
            **self._origin(stage),
        }

    def _measured(self, stage: Stage) -> Row:
        summary = self._summary("finetune", stage.key)
        dense = self._summary("dense", parts_of(stage)["dense"].key)
        return {
            "budget_kind": summary["budget"]["kind"],
            "budget_asked": summary["budget"]["value"],
            "macs": summary["macs"],
            "params": summary["params"],
            "dense_macs": dense["macs"],
            "dense_params": dense["params"],
            "dense_top1": dense["test"]["top1"],
            "top1_before": summary["test_before"]["top1"],
            "top1": summary["test"]["top1"],
            "top5": summary["test"].get("top5"),
            "val_top1": summary["val"]["top1"],
            "num_test_images": summary["test"]["num_images"],
        }

    def _cost(self, stage: Stage) -> Row:
        parts = parts_of(stage)
        summary, family = self._summary("finetune", stage.key), self._summary(parts["family"].kind, parts["family"].key)
        searching = {part.key: self._summary(part.kind, part.key) for part in (parts["search"], parts["family"])}
        recipe, data = stage.config["recipe"], stage.config["data"]
        splits = data.get("fingerprint", {}).get("splits", {})
        return {
            "epochs_update": searching[parts["search"].key]["epochs"],
            "epochs_prune": family["epochs"] if len(searching) > 1 else 0,
            "epochs_search": sum(part["epochs"] for part in searching.values()),
            "epochs_finetune": summary["epochs"],
            "batch_size": recipe["batch_size"],
            "lr": recipe["lr"],
            "img_size": data["img_size"],
            "num_train_images": splits.get("train"),
            "search_seconds": sum(part["seconds"] for part in searching.values()),
            "search_gpu_seconds": sum(part["gpu_seconds"] for part in searching.values()),
            "walk_seconds": family["seconds"] if len(searching) > 1 else 0.0,
            "walk_gpu_seconds": family["gpu_seconds"] if len(searching) > 1 else 0.0,
            "num_members_of_search": len(family["members"]),
            "finetune_seconds": summary["seconds"],
            "finetune_gpu_seconds": summary["gpu_seconds"],
            "device": summary["device"],
        }

    def _origin(self, stage: Stage) -> Row:
        parts = parts_of(stage)
        return {
            "key": stage.key,
            "family_key": parts["family"].key,
            "search_key": parts["search"].key,
            "path_key": parts["search"].key if parts["search"].kind == "update" else None,
            "dense_key": parts["dense"].key,
            "dense_config": {name: value for name, value in parts["dense"].config.items() if name != "seed"},
            "git_commit": (self._facts.provenance("finetune", stage.key).get("git") or {}).get("commit"),
            "folder": str(self._facts.stage_dir("finetune", stage.key)),
            "config": dict(stage.config),
            "method_config": dict(parts["search"].config["method"]),
        }


def parts_of(stage: Stage) -> dict[str, Stage]:
    """The stages that a member comes from."""
    family = stage.inputs["family"]
    # A search for one budget hands out its member itself; others end in an order, which is then walked.
    return {"family": family, "search": family.inputs.get("path", family), "dense": family.inputs["dense"]}


def identity(point: Point, variant: str) -> Row:
    """What a point is, whatever came of it."""
    names = ("method", "preset", "model", "data", "seed")
    return {**{name: point.meta[name] for name in names}, "variant": variant}


def command(point: Point) -> str:
    """What to type to run a point again."""
    words = [word for word in point.overrides if not word.lstrip("+~").startswith(PLACE_WORDS)]
    return shlex.join(["spp", "run", *words])
