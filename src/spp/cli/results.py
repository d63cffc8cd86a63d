"""What a sweep has measured so far, in a few words."""

from collections.abc import Collection, Mapping
from typing import Any

from spp.plan.graph import Plan
from spp.store.store import Store


def result_of(store: Store, plan: Plan, done: Collection[str]) -> dict[str, Any] | None:
    """The range of the headline metric over the members that are measured; None as long as there is none.

    A range, as the best of many on the test set would say more than is true.

    Args:
        store: of the sweep.
        plan: of the sweep.
        done: keys of its stages that are done.

    Returns:
        label and unit of the metric, split, lowest and highest value, number of members, dense (or None).
    """
    finals = {stage.key: stage for point in plan.points for stage in point.stages if stage.key in done}
    values: list[float] = []
    dense: float | None = None
    metric: Mapping[str, Any] = {}
    split = ""
    for stage in finals.values():
        summary = store.summary(stage.kind, stage.key)
        found = _headline(summary)
        if found is None:
            continue
        split, metric = found
        values.append(float(metric["value"]))
        reference = stage.inputs.get("reference")
        if dense is None and reference is not None and store.is_done(reference.kind, reference.key):
            of_dense = _headline(store.summary(reference.kind, reference.key))
            dense = None if of_dense is None else float(of_dense[1]["value"])
    if not values:
        return None
    numbers = {"lowest": min(values), "highest": max(values), "num_members": len(values), "dense": dense}
    return {"label": metric["label"], "unit": metric["unit"], "split": split, **numbers}


def result_text(result: Mapping[str, Any] | None) -> str:
    """`top-1 96.3 to 98.3 % (6 members), dense 97.3`; empty where there is none."""
    if result is None:
        return ""
    lowest, highest, number = result["lowest"], result["highest"], result["num_members"]
    values = f"{lowest:.4g}" if lowest == highest else f"{lowest:.4g} to {highest:.4g}"
    members = f"{number:,} member{'s' if number > 1 else ''}"
    dense = "" if result["dense"] is None else f", dense {result['dense']:.4g}"
    return f"{result['label']} {values} {result['unit']} ({members}{dense})"


def _headline(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The metric that a network is judged by: on the test set where it was looked at, else on validation."""
    metrics = summary.get("metrics", {})
    for split in ("test", "val"):
        metric = (metrics.get(split) or {}).get(summary.get("headline"))
        if metric is not None:
            return split, metric
    return None
