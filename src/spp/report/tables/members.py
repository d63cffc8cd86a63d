"""The members themselves, as the csv of the tables over them holds them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spp.record.metrics import AFTER, BEFORE, DENSE, REPAIRED
from spp.record.rows import Row

METRIC_NAMES = {
    AFTER: "{}",
    BEFORE: "{}_before",
    REPAIRED: "{}_repaired",
    DENSE: "dense_{}",
    "val_metrics": "val_{}",
    "val_metrics_before": "val_{}_before",
    "val_metrics_repaired": "val_{}_repaired",
}
"""What the values of a metric are called, by the column of the row that they come from."""


def member_data(rows: Sequence[Row]) -> tuple[Mapping[str, Any], ...]:
    """The rows as they were recorded, one per member, but for the whole config, which lies in the stage's folder.

    A metric `error` has the columns error, error_before, error_repaired, dense_error, val_error, val_error_before,
    val_error_repaired, and its unit, better, count and of.
    """
    return tuple(_member(row) for row in rows)


def _member(row: Row) -> Mapping[str, Any]:
    kept = {name: value for name, value in row.items() if name != "config" and name not in METRIC_NAMES}
    plain = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in kept.items()}
    return {**plain, **dict(_metrics(row))}


def _metrics(row: Row) -> Iterator[tuple[str, Any]]:
    for column, name in METRIC_NAMES.items():
        for metric, entry in row.get(column, {}).items():
            yield name.format(metric), entry["value"]
    for metric, entry in row[AFTER].items():
        yield from ((f"{metric}_{field}", entry[field]) for field in ("unit", "better", "count", "of"))
