"""Figure 2 as a table: what a solution path looks like."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spp.record.record import PathSource, Record
from spp.report.groups import Combination
from spp.report.path_arrays import UNIT_KINDS
from spp.report.path_statistics import PathStatistics, path_statistics
from spp.report.published import Published
from spp.report.table import Cell, Column, Table, insert_column

COLUMNS = (
    Column("method", is_number=False),
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("seed"),
    Column("steps"),
    Column("units"),
    Column("entered (%)"),
    *(Column(f"{name} entered (%)") for name in UNIT_KINDS.values()),
    *(Column(f"{name} median entry (step)") for name in UNIT_KINDS.values()),
    Column("stays (%)"),
)
LEGEND = (
    "Each path: how many of the units entered the support of Gamma during the search, in all and of each kind; the "
    "step at which half of a kind's units had entered, empty where fewer did; and, of those that entered, the share "
    "that never left again. The paper's figure shows that units, once in, stay; its numbers are not known."
)


def tables(record: Record, published: Published) -> list[Table]:
    """Summary of Figure 2: one line for each path.

    Raises:
        ValueError: if there is no finished path.
    """
    if not record.paths:
        raise ValueError("figure2: there is no finished path; allowed: a sweep whose update is done; see spp status")
    data = tuple(_tidy(source, path_statistics(source.artifacts)) for source in record.paths)
    rows = tuple(_cells(line) for line in data)
    table = Table("figure2-summary", "Figure 2: solution paths", COLUMNS, rows, (LEGEND,), (), data)
    tasks = [Cell(line["task"]) for line in data]
    has_tasks = len({line["task"] for line in data}) > 1
    return [insert_column(table, 3, Column("task", is_number=False), tasks) if has_tasks else table]


def _tidy(source: PathSource, statistics: PathStatistics) -> dict[str, Any]:
    line: dict[str, Any] = {
        **Combination.of_source(source)._asdict(),
        "seed": source.seed,
        "num_steps": statistics.num_steps,
        "num_units": len(statistics.times),
        "entered": 100 * float(np.isfinite(statistics.times).mean()),
        "stays": 100 * statistics.stays if np.isfinite(statistics.stays) else None,
    }
    for kind in UNIT_KINDS:
        times = statistics.times[statistics.kinds == kind]
        median = float(np.median(times)) if len(times) else float("inf")
        line[f"entered_{kind}"] = 100 * float(np.isfinite(times).mean()) if len(times) else None
        line[f"median_entry_{kind}"] = median if np.isfinite(median) else None
    return line


def _cells(line: Mapping[str, Any]) -> tuple[Cell, ...]:
    combination = Combination.of(line)
    return (
        Cell(combination.label),
        Cell(combination.model),
        Cell(combination.data),
        *(Cell(str(line[name]), line[name]) for name in ("seed", "num_steps", "num_units")),
        _number(line["entered"], 1),
        *(_number(line[f"entered_{kind}"], 1) for kind in UNIT_KINDS),
        *(_number(line[f"median_entry_{kind}"], 0) for kind in UNIT_KINDS),
        _number(line["stays"], 1),
    )


def _number(value: float | None, digits: int) -> Cell:
    return Cell() if value is None else Cell(f"{value:.{digits}f}", value)
