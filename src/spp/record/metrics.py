"""Metrics of a row: what they are called, their unit, which way is better, and how their values are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

AFTER, BEFORE, REPAIRED, DENSE = "metrics", "metrics_before", "metrics_repaired", "dense_metrics"
"""Columns of a row: of the finished member, of the member as it was cut, of the same repaired in closed form and not
trained on (where it was), of the dense network."""

NUM_DIGITS = 3
"""Significant digits of values that are no percentages."""


@dataclass(frozen=True)
class MetricInfo:
    """A metric without its values.

    Attributes:
        name: its name in the record, a word of code.
        label: what people call it, such as "top-1".
        unit: of its values, such as "%"; "" where it has none.
        better: which values are better.
        of: what a sample is called, in the plural, such as "images".
    """

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower"]
    of: str

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> "MetricInfo":
        """What a summary or a row says of a metric beside its value and count."""
        return cls(name, entry["label"], entry["unit"], entry["better"], entry["of"])

    @property
    def title(self) -> str:
        """The label with the unit, for axes: top-1 (%), perplexity."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def column(self) -> str:
        """The label for heads of columns, where percentages go without their sign: top-1, loss (nats)."""
        return self.label if self.unit == "%" else self.title

    @property
    def heading(self) -> str:
        """The label at the beginning of a sentence: Top-1, Perplexity, mAP."""
        first, _, _ = self.label.partition(" ")
        return self.label if first != first.lower() else self.label[:1].upper() + self.label[1:]

    @property
    def description(self) -> str:
        """The heading with what a reader cannot guess: Top-1, Loss in nats (lower is better)."""
        unit = f" in {self.unit}" if self.unit not in ("", "%") else ""
        return f"{self.heading}{unit}{self.direction}"

    @property
    def direction(self) -> str:
        """Words behind a label that say so where lower is better."""
        return " (lower is better)" if self.better == "lower" else ""

    @property
    def change_unit(self) -> str:
        """Unit of differences: points between percentages."""
        return "points" if self.unit == "%" else self.unit

    @property
    def in_change_unit(self) -> str:
        """The same as words behind a noun: " in points"; empty where there is no unit."""
        return f" in {self.change_unit}" if self.unit else ""

    @property
    def sample(self) -> str:
        """What one sample is called: image, query."""
        word = self.of
        return f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")

    def digits(self, value: float) -> int:
        """Digits behind the point with which values about as large as `value` are written."""
        if self.unit == "%" or not value or not math.isfinite(value):
            return 1
        return max(0, NUM_DIGITS - 1 - math.floor(math.log10(abs(value))))

    def number(self, value: float) -> str:
        """A value without its unit: 97.3, 0.0832."""
        return f"{value:.{self.digits(value)}f}"

    def text(self, value: float) -> str:
        """A value with its unit: 97.3 %, 0.0832 nats."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def change_text(self, change: float, of: float) -> str:
        """A difference to `of` with its sign and as many digits as that: -1.0, +0.0021."""
        return f"{change:+.{self.digits(of)}f}"

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other`."""
        return value > other if self.better == "higher" else value < other


def headline(rows: Sequence[Mapping[str, Any]]) -> MetricInfo:
    """The metric that rows of one task are compared by."""
    row = rows[0]
    return MetricInfo.read(row["headline"], row[AFTER][row["headline"]])


def metrics_of(rows: Iterable[Mapping[str, Any]]) -> list[MetricInfo]:
    """The metrics that any of the rows has: the headline first, then in the order of the task."""
    found: dict[str, MetricInfo] = {}
    for row in rows:
        for name in (row["headline"], *row[AFTER]):
            if name not in found and name in row[AFTER]:
                found[name] = MetricInfo.read(name, row[AFTER][name])
    return list(found.values())


def value_of(row: Mapping[str, Any], name: str, column: str = AFTER) -> float | None:
    """The value of a metric in a column of a row; None where it was not measured or is no finite number."""
    value = row[column].get(name, {}).get("value")
    return float(value) if value is not None and math.isfinite(value) else None


def values_of(rows: Iterable[Mapping[str, Any]], name: str, column: str = AFTER) -> list[float]:
    """The values of a metric that are known."""
    return [value for row in rows if (value := value_of(row, name, column)) is not None]


def mean_change(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean difference of the members to their dense networks; None where it is not known of any."""
    pairs = [(value_of(row, name), value_of(row, name, DENSE)) for row in rows]
    changes = [after - dense for after, dense in pairs if after is not None and dense is not None]
    return mean(changes) if changes else None


def counts_of(rows: Iterable[Mapping[str, Any]], name: str) -> list[int]:
    """Over how many test samples the values of a metric are, ascending."""
    counts = {row[AFTER].get(name, {}).get("count") for row in rows}
    return sorted(count for count in counts if count is not None)


def counts_text(rows: Iterable[Mapping[str, Any]], name: str) -> str:
    """The same as text: 297, 10,000."""
    return ", ".join(f"{count:,}" for count in counts_of(rows, name))
