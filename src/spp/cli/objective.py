"""What a sweeper chooses by: the headline metric of a point on the validation split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spp.plan.spec import Stage
from spp.store.store import Store


class PointFailed(Exception):  # noqa: N818 - the error is the stage's, which has been shown
    """A point has no objective, because a stage of it failed."""


class MetricValue(float):
    """The value of a metric, a number to every sweeper, with what is needed to choose by it and to print it."""

    label: str
    unit: str
    better: str
    """higher or lower"""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "MetricValue":
        """From value, label, unit and better."""
        made = cls(values["value"])
        made.label, made.unit, made.better = values["label"], values["unit"], values["better"]
        return made

    def plain(self) -> dict[str, Any]:
        """What `read` takes."""
        return {"value": float(self), "label": self.label, "unit": self.unit, "better": self.better}

    def __str__(self) -> str:
        return f"{self.label} {float(self):.4g} {self.unit}"


def objective_of(root: Path, stages: Sequence[Stage]) -> MetricValue | None:
    """The mean of the headline metric over the final stages of a point; never of the test set: it would be chosen by.

    Returns:
        None if a final stage has no such metric.

    Raises:
        PointFailed: if a final stage is not done.
    """
    store, found = Store(root), []
    for stage in stages:
        if not store.is_done(stage.kind, stage.key):
            raise PointFailed(f"{stage.kind} {stage.key} is not done")
        summary = store.summary(stage.kind, stage.key)
        found.append(summary.get("metrics", {}).get("val", {}).get(summary.get("headline")))
    if not found or None in found:
        return None
    return MetricValue.read({**found[0], "value": sum(metric["value"] for metric in found) / len(found)})
