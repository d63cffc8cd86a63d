"""A metric over size: the members of a record as curves, one point per budget, with mean and deviation over seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple

from spp.plan.numbers import FLOPS_SCALES
from spp.record.metrics import AFTER, DENSE, MetricInfo, counts_text, values_of
from spp.record.rows import Row
from spp.report.groups import Workload, dense_rows, flops_unit_of, tasks_to_name
from spp.report.palette import Series, method_order


class Panel(NamedTuple):
    """What may share a picture: members of one workload, with budgets of one kind (macs, params or units).

    `task_words` name the task where the record has several; `flops_unit` is that of the x axis, G or M by the dense
    network.
    """

    workload: Workload
    budget_kind: str
    task_words: tuple[str, ...] = ()
    flops_unit: str = "G"

    @property
    def title(self) -> str:
        """For people: "deit_small on imagenet"."""
        kind = () if self.is_plain else (f"budgets in {self.budget_kind}",)
        return ", ".join([self.workload.title, *self.task_words, *kind])

    @property
    def stem(self) -> str:
        """For names of files."""
        kind = () if self.is_plain else (self.budget_kind,)
        return "-".join([*self.task_words, self.workload.model, self.workload.data, *kind])

    @property
    def is_plain(self) -> bool:
        """Whether budgets are of the usual kind."""
        return self.budget_kind == "macs"

    @property
    def size_column(self) -> str:
        """Column of the achieved size that the x axis shows; units are shown by their FLOPs, weights by parameters."""
        return "params" if self.budget_kind in ("params", "weights") else "macs"

    @property
    def size_label(self) -> str:
        """Label of that axis."""
        return "parameters (M)" if self.size_column == "params" else f"FLOPs ({self.flops_unit})"

    @property
    def size_name(self) -> str:
        """Name of that column in tidy data."""
        return "params_m" if self.size_column == "params" else f"flops_{self.flops_unit.lower()}"

    @property
    def size_scale(self) -> float:
        """Counts per unit of that axis."""
        return FLOPS_SCALES[self.flops_unit] if self.size_column == "macs" else 1e6


@dataclass(frozen=True)
class CurvePoint:
    """Members that differ by their seed alone; size is the mean achieved one in the panel's unit."""

    series: Series
    budget_asked: float
    size: float
    value: float
    deviation: float | None
    num_seeds: int

    def tidy(self, panel: Panel, /, **columns: Any) -> Mapping[str, Any]:
        """The point as a row of tidy data behind `columns`."""
        return {
            **columns,
            "method": self.series.method,
            "preset": self.series.preset,
            "variant": self.series.variant,
            "budget_asked": self.budget_asked,
            panel.size_name: self.size,
            "value": self.value,
            "deviation": self.deviation,
            "num_seeds": self.num_seeds,
        }


def panels(rows: Sequence[Row]) -> dict[Panel, list[Row]]:
    """The rows of each panel, in the order of first appearance."""
    task_words = tasks_to_name(rows)
    found: dict[Panel, list[Row]] = {}
    for row in rows:
        panel = Panel(Workload.of(row), row["budget_kind"], task_words[row["task"]])
        found.setdefault(panel, []).append(row)
    return {panel._replace(flops_unit=flops_unit_of(members)): members for panel, members in found.items()}


def by_series(rows: Iterable[Row]) -> dict[Series, list[Row]]:
    """The rows of each series, in the order of legends."""
    found: dict[Series, list[Row]] = {}
    for row in rows:
        found.setdefault(Series.of(row), []).append(row)
    return {series: found[series] for series in sorted(found, key=method_order)}


def curve(
    series: Series, rows: Sequence[Row], panel: Panel, metric: MetricInfo, column: str = AFTER
) -> list[CurvePoint]:
    """The points of one series, smallest size first; members without the metric are left out.

    column: of the rows, with the values to show (`spp.record.metrics`).
    """
    by_budget: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        if values_of([row], metric.name, column):
            by_budget.setdefault((row["budget_asked"], row["variant"]), []).append(row)
    points = []
    for (budget, _), members in by_budget.items():
        size = mean(row[panel.size_column] for row in members) / panel.size_scale
        values = values_of(members, metric.name, column)
        deviation = stdev(values) if len(values) > 1 else None
        points.append(CurvePoint(series, budget, size, mean(values), deviation, len(values)))
    return sorted(points, key=lambda point: (point.size, point.value))


def dense_values(rows: Sequence[Row], metric: MetricInfo) -> list[float]:
    """The metric of every dense network, each once; of those that differ by more than their seed, of the kind that most
    members come from."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(json.dumps(row["dense_config"], sort_keys=True), []).append(row)
    most = max(kinds.values(), key=len)
    return values_of(dense_rows(most), metric.name, DENSE)


def samples_text(rows: Sequence[Row], metric: MetricInfo) -> str:
    """In words, how many test samples a metric is over."""
    counts = counts_text(rows, metric.name)
    return f"{counts} test {metric.of}" if counts else f"the test {metric.of}"
