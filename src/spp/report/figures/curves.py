"""Accuracy over size: the members of a record as curves, one point per budget, with mean and deviation over seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple

from spp.record.rows import Row
from spp.report.palette import Series, method_order


class Place(NamedTuple):
    """What may share a picture: a model on a data set, with budgets of one kind (macs, params or units)."""

    model: str
    data: str
    budget_kind: str

    @property
    def title(self) -> str:
        """For people: "deit_small on imagenet"."""
        return f"{self.model} on {self.data}" + ("" if self.is_plain else f", budgets in {self.budget_kind}")

    @property
    def stem(self) -> str:
        """For names of files."""
        return f"{self.model}-{self.data}" + ("" if self.is_plain else f"-{self.budget_kind}")

    @property
    def is_plain(self) -> bool:
        """Whether budgets are of the usual kind."""
        return self.budget_kind == "macs"

    @property
    def size_column(self) -> str:
        """Column of the achieved size that the x axis shows; units are shown by their FLOPs."""
        return "params" if self.budget_kind == "params" else "macs"

    @property
    def size_label(self) -> str:
        """Label of that axis."""
        return "parameters (M)" if self.size_column == "params" else "FLOPs (G)"

    @property
    def size_name(self) -> str:
        """Name of that column in tidy data."""
        return "params_m" if self.size_column == "params" else "flops_g"

    @property
    def size_scale(self) -> float:
        """Counts per unit of that axis."""
        return 1e6 if self.size_column == "params" else 1e9


@dataclass(frozen=True)
class CurvePoint:
    """Members that differ by their seed alone; size is the mean achieved one in the place's unit."""

    series: Series
    budget_asked: float
    size: float
    value: float
    deviation: float | None
    num_seeds: int

    def tidy(self, place: Place, **columns: Any) -> Mapping[str, Any]:
        """The point as a row of tidy data behind `columns`; value and deviation in percent."""
        return {
            **columns,
            "method": self.series.method,
            "preset": self.series.preset,
            "variant": self.series.variant,
            "budget_asked": self.budget_asked,
            place.size_name: self.size,
            "value": self.value,
            "deviation": self.deviation,
            "num_seeds": self.num_seeds,
        }


def places(rows: Iterable[Row]) -> dict[Place, list[Row]]:
    """The rows of each place, in the order of first appearance."""
    found: dict[Place, list[Row]] = {}
    for row in rows:
        found.setdefault(Place(row["model"], row["data"], row["budget_kind"]), []).append(row)
    return found


def by_series(rows: Iterable[Row]) -> dict[Series, list[Row]]:
    """The rows of each series, in the order of legends."""
    found: dict[Series, list[Row]] = {}
    for row in rows:
        found.setdefault(Series.of(row), []).append(row)
    return {series: found[series] for series in sorted(found, key=method_order)}


def curve(series: Series, rows: Sequence[Row], place: Place, metric: str = "top1") -> list[CurvePoint]:
    """The points of one series, smallest size first; members without the metric are left out."""
    by_budget: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        if row[metric] is not None:
            by_budget.setdefault((row["budget_asked"], row["variant"]), []).append(row)
    points = [
        CurvePoint(
            series,
            budget,
            mean(row[place.size_column] for row in members) / place.size_scale,
            mean(row[metric] for row in members),
            stdev(row[metric] for row in members) if len(members) > 1 else None,
            len(members),
        )
        for (budget, _), members in by_budget.items()
    ]
    return sorted(points, key=lambda point: (point.size, point.value))


def dense_accuracy(rows: Sequence[Row]) -> list[float]:
    """Top-1 in percent of every dense network, each once; of those that differ by more than their seed, of the kind
    that most members come from."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(json.dumps(row["dense_config"], sort_keys=True), []).append(row)
    most = max(kinds.values(), key=len)
    return list({row["dense_key"]: row["dense_top1"] for row in most}.values())


def num_images(rows: Sequence[Row]) -> str:
    """In words, how many test images an accuracy is over."""
    counts = sorted({row["num_test_images"] for row in rows if row["num_test_images"] is not None})
    return f"{' or '.join(f'{count:,}' for count in counts)} test images" if counts else "the test images"
