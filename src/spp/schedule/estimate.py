"""How long the stages of a plan may take, from what finished stages of the same kind took."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from spp.plan.spec import Stage
from spp.store.store import Store

NUM_RECENT = 20


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a stage; None where nothing is known."""

    seconds: float | None
    gpu_seconds: float | None


def estimate(store: Store, stages: Iterable[Stage]) -> dict[str, Estimate]:
    """Expected cost by key: the medians over the last NUM_RECENT stages of the same kind that were finished.

    Reads one file per kind. Stages of one kind differ by orders of magnitude between models and data sets, so
    this is a guess for people and nothing else.
    """
    by_kind: dict[str, Estimate] = {}
    estimates = {}
    for stage in stages:
        if stage.kind not in by_kind:
            costs = store.recent_costs(stage.kind, NUM_RECENT)
            by_kind[stage.kind] = Estimate(_median(costs, "seconds"), _median(costs, "gpu_seconds"))
        estimates[stage.key] = by_kind[stage.kind]
    return estimates


def _median(costs: Iterable[Mapping[str, Any]], field: str) -> float | None:
    values = [cost[field] for cost in costs if cost.get(field) is not None]
    return median(values) if values else None
