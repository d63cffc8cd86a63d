"""Rows of the record: one per finished member, the unit of every table."""

import shlex
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from spp.plan.graph import Point
from spp.plan.spec import Stage
from spp.record.lineage import Lineage
from spp.record.variants import PLACE_WORDS

Row = dict[str, Any]

_NO_COST = {"epochs": 0, "seconds": 0.0, "gpu_seconds": 0.0}
"""Of a stage that the pipeline does without."""


class Facts(Protocol):
    """What finished stages have written down about themselves: a store, or a copy of its records."""

    def is_done(self, kind: str, key: str) -> bool: ...
    def damage(self, kind: str, key: str) -> str | None: ...
    def failure(self, kind: str, key: str) -> dict[str, Any] | None: ...
    def summary(self, kind: str, key: str) -> dict[str, Any]: ...
    def provenance(self, kind: str, key: str) -> dict[str, Any]: ...
    def stage_dir(self, kind: str, key: str) -> Path: ...


class RowMaker:
    """Makes rows from `facts`, reading every file once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._summary = cache(facts.summary)

    def row(self, point: Point, sweep: str, variant: str, lineage: Lineage) -> Row:
        """The row of a finished member of `point`.

        Sizes are counts (macs per sample, params). `metrics`, `metrics_before` (the member as it was cut),
        `metrics_repaired` (the same re-fitted in closed form and not trained on; empty without a repair) and
        `dense_metrics` hold by name value, unit, better, count, of and label, on the test set; `val_metrics` and so on
        on the validation split. `headline` names the one to compare by (`spp.record.metrics`). `search_seconds` are
        those of search and walk, shared by `num_members_of_search` members, as are `repair_seconds`; `walk_seconds`
        those of the walk alone. `key`, `folder`, `git_commit` and `measured_at` are of the stage that measured the
        member, `config` and `device` of the one that made it; `recipes` are those of search, walk and finetuning, by
        kind of stage.
        """
        return {
            "point": point.name,
            "sweep": sweep,
            "command": command(point),
            **identity(point, lineage, variant),
            **self._measured(lineage),
            **self._cost(lineage),
            **self._origin(lineage),
        }

    def _measured(self, lineage: Lineage) -> Row:
        summary = self._summary(lineage.measure.kind, lineage.measure.key)
        reference = self._summary(lineage.reference.kind, lineage.reference.key)
        metrics, is_repaired = summary["metrics"], lineage.repair is not None
        return {
            "budget_kind": summary["budget"]["kind"],
            "budget_asked": summary["budget"]["value"],
            "macs": summary["macs"],
            "params": summary["params"],
            "dense_macs": summary["dense"]["macs"],
            "dense_params": summary["dense"]["params"],
            "headline": summary["headline"],
            "metrics": metrics["test"],
            "metrics_before": metrics.get("before", metrics["test"]),
            "metrics_repaired": metrics.get("repaired", metrics["test"] if is_repaired else {}),
            "dense_metrics": reference["metrics"]["test"],
            "val_metrics": metrics.get("val", {}),
            "val_metrics_before": metrics.get("val_before", metrics.get("val", {})),
            "val_metrics_repaired": metrics.get("val_repaired", metrics.get("val", {}) if is_repaired else {}),
            **self._of_language(lineage, summary, reference),
        }

    def _of_language(self, lineage: Lineage, summary: Row, reference: Row) -> Row:
        """Of a language model, how it was calibrated and measured, window by window and by tasks; else nothing."""
        if "protocol" not in summary:
            return {}
        drawn, asked = lineage.member.inputs["tokens"].config["text"], "zero_shot" in summary
        return {
            "protocol": summary["protocol"],
            "calibration": {name: drawn[name] for name in ("name", "num_windows", "length")},
            "window_losses": summary["window_losses"],
            "dense_window_losses": reference["window_losses"],
            **({"zero_shot": summary["zero_shot"], "dense_zero_shot": reference["zero_shot"]} if asked else {}),
        }

    def _cost(self, lineage: Lineage) -> Row:
        search, family, finetune = lineage.search, lineage.family, lineage.finetune
        searched = self._summary(search.kind, search.key)
        walked = self._summary(family.kind, family.key) if lineage.is_walked else _NO_COST
        trained = self._summary(finetune.kind, finetune.key) if finetune else _NO_COST
        recipe = finetune.config["recipe"] if finetune else {}
        data = lineage.measure.config["data"]
        repaired = self._summary(lineage.repair.kind, lineage.repair.key) if lineage.repair else _NO_COST
        return {
            "epochs_update": searched["epochs"],
            "epochs_prune": walked["epochs"],
            "epochs_search": searched["epochs"] + walked["epochs"],
            "epochs_finetune": trained["epochs"],
            "batch_size": recipe.get("batch_size"),
            "lr": recipe.get("lr"),
            "num_train": data.get("fingerprint", {}).get("splits", {}).get("train"),
            "data_config": dict(data),
            "search_seconds": searched["seconds"] + walked["seconds"],
            "search_gpu_seconds": searched["gpu_seconds"] + walked["gpu_seconds"],
            "walk_seconds": walked["seconds"],
            "walk_gpu_seconds": walked["gpu_seconds"],
            "num_members_of_search": len(self._summary(family.kind, family.key)["members"]),
            "repair": lineage.repair.config["repair"]["kind"] if lineage.repair else "none",
            "repair_seconds": repaired["seconds"],
            "finetune_seconds": trained["seconds"],
            "finetune_gpu_seconds": trained["gpu_seconds"],
            "device": self._summary(lineage.member.kind, lineage.member.key)["device"],
        }

    def _origin(self, lineage: Lineage) -> Row:
        measure, member, dense = lineage.measure, lineage.member, lineage.dense
        provenance = self._facts.provenance(measure.kind, measure.key)
        return {
            "key": measure.key,
            "member_key": member.key,
            "member_kind": member.kind,
            "family_key": lineage.family.key,
            "search_key": lineage.search.key,
            "path_key": lineage.path.key if lineage.path else None,
            "dense_key": dense.key,
            "dense_config": {name: value for name, value in dense.config.items() if name != "seed"},
            "git_commit": (provenance.get("git") or {}).get("commit"),
            "measured_at": provenance.get("started_at"),
            "folder": str(self._facts.stage_dir(measure.kind, measure.key)),
            "config": dict(member.config),
            # What a search depends on, and what the choice of members along its path does.
            "method_config": {**lineage.search.config["method"], **lineage.family.config["method"]},
            "recipes": _recipes(lineage),
        }


def _recipes(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """The recipes of search, walk and finetuning, as far as there are any, by the kinds of their stages, each with its
    `teacher` where that is not the dense network."""
    stages = (lineage.search, lineage.family, lineage.member)
    return {stage.kind: {**stage.config["recipe"], **_teacher(stage)} for stage in stages if "recipe" in stage.config}


def _teacher(stage: Stage) -> dict[str, Any]:
    return {"teacher": dict(stage.config["teacher"])} if "teacher" in stage.config else {}


def identity(point: Point, lineage: Lineage, variant: str) -> Row:
    """What a member is but for its budget, whatever came of it."""
    names = ("method", "preset", "model", "data", "seed")
    return {**{name: point.meta[name] for name in names}, "task": lineage.task, "variant": variant}


def command(point: Point) -> str:
    """What to type to run a point again."""
    words = [word for word in point.overrides if not word.lstrip("+~").startswith(PLACE_WORDS)]
    return shlex.join(["spp", "run", *words])
