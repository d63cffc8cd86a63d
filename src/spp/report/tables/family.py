"""The family table: one row per budget, beside the dense model."""

from collections.abc import Sequence
from statistics import mean

from spp.plan.numbers import FLOPS_SCALES
from spp.record.metrics import (
    AFTER,
    BEFORE,
    DENSE,
    REPAIRED,
    MetricInfo,
    counts_text,
    headline,
    mean_change,
    metrics_to_dense,
    values_of,
)
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import (
    Group,
    Workload,
    by_workload,
    dense_cell,
    dense_groups,
    devices_text,
    flops_unit_of,
    group_rows,
    metric_cell,
    num_searches,
    search_rows,
    seeds_text,
    tasks_to_name,
)
from spp.report.missing import missing_todos
from spp.report.published import Published
from spp.report.table import Cell, Column, Table
from spp.report.tables.members import member_data

WHEN = {BEFORE: "before", REPAIRED: "repaired", AFTER: "after"}
"""What columns of rows are called in heads of tables."""
LEGEND = (
    "FLOPs are multiply-adds of Linear, Conv and matmul for one {sample}; `asked` is the budget, the rest was counted "
    "on the compact model. {metric} is on the test set of {counts} {samples}, before{repaired} and after "
    "finetuning{deviation}. "
    "`to dense` is the change of {label}{unit}."
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table for each workload; mean and deviation where seeds repeat.

    Raises:
        ValueError: if there is no finished member.
    """
    if not record.rows:
        raise ValueError("family: there is no finished member; allowed: a sweep with one at least; see spp status")
    workloads, task_words = by_workload(record.rows), tasks_to_name(record.rows)
    made = []
    for workload, rows in workloads.items():
        words = task_words[workload.task]
        missing = [member for member in record.missing if Workload.of_source(member) == workload]
        name = "family" if len(workloads) == 1 else file_stem("family", *words, workload.model, workload.data)
        title = ", ".join([workload.title, *words])
        todo = missing_todos(record, missing, published)
        metric, places = headline(rows), metric_places(rows)
        columns, legend = _columns(metric, places, flops_unit_of(rows)), (_legend(rows, metric),)
        made.append(Table(name, title, columns, _rows(rows, metric, places), legend, todo, member_data(rows)))
    return made


def metric_places(rows: Sequence[Row]) -> list[tuple[MetricInfo, str]]:
    """The metrics to show and where in the rows they stand: the headline, then how far members are from dense."""
    after = [(metric, AFTER) for metric in (headline(rows), *metrics_to_dense(rows))]
    places = [(headline(rows), BEFORE)]
    for metric, column in after:
        places += [(metric, REPAIRED)] if values_of(rows, metric.name, REPAIRED) else []
        places.append((metric, column))
    return places


def _columns(metric: MetricInfo, places: Sequence[tuple[MetricInfo, str]], unit: str) -> tuple[Column, ...]:
    return (
        Column("method", is_number=False),
        Column("asked"),
        Column("params (M)"),
        Column(f"FLOPs ({unit})"),
        Column("of dense"),
        *(Column(f"{shown.column} {WHEN[column]}") for shown, column in places),
        Column("to dense"),
    )


def _rows(
    rows: Sequence[Row], metric: MetricInfo, places: Sequence[tuple[MetricInfo, str]]
) -> tuple[tuple[Cell, ...], ...]:
    scale = FLOPS_SCALES[flops_unit_of(rows)]
    dense = (_dense(name, found, metric, places, scale) for name, found in dense_groups(rows).items())
    return (*dense, *(_cells(group, members, metric, places, scale) for group, members in group_rows(rows).items()))


def _dense(
    name: str, dense: Sequence[Row], metric: MetricInfo, places: Sequence[tuple[MetricInfo, str]], scale: float
) -> tuple[Cell, ...]:
    size = (_number(dense[0]["dense_params"] / 1e6), _number(dense[0]["dense_macs"] / scale))
    shown = (dense_cell(dense, metric) if place == (metric, AFTER) else Cell() for place in places)
    return (Cell(name), Cell(), *size, Cell("100 %", 100.0), *shown, Cell())


def _cells(
    group: Group, rows: Sequence[Row], metric: MetricInfo, places: Sequence[tuple[MetricInfo, str]], scale: float
) -> tuple[Cell, ...]:
    share = 100 * mean(row["macs"] / row["dense_macs"] for row in rows)
    return (
        Cell(group.combination.short_label),
        Cell(group.budget, group.budget_asked),
        _number(mean(row["params"] for row in rows) / 1e6),
        _number(mean(row["macs"] for row in rows) / scale),
        Cell(f"{share:.1f} %", share),
        *(metric_cell(rows, shown, column) for shown, column in places),
        _change(rows, metric),
    )


def _change(rows: Sequence[Row], metric: MetricInfo) -> Cell:
    """The change to the dense networks; lower-is-better values rise where the member is worse, so a hint says which."""
    change = mean_change(rows, metric.name)
    if change is None:
        return Cell()
    dense = mean(values_of(rows, metric.name, DENSE))
    hint = f"{'better' if metric.is_better(change, 0.0) else 'worse'} than the dense network" if change else ""
    return Cell(metric.change_text(change, dense), change, hint=hint)


def _number(value: float) -> Cell:
    return Cell(f"{value:.4g}", value)


def _legend(rows: Sequence[Row], metric: MetricInfo) -> str:
    seeds = seeds_text(group_rows(rows).values())
    searches = search_rows(rows)
    seconds = sum(row["search_seconds"] for row in searches)
    count = num_searches(searches)
    cost = f" {count} search{'es'[: 2 * (count > 1)]} with the walk, {seconds:.0f} s on "
    about = LEGEND.format(
        sample=metric.sample,
        metric=metric.description,
        counts=counts_text(rows, metric.name),
        samples=metric.of,
        repaired=", repaired in closed form," if values_of(rows, metric.name, REPAIRED) else "",
        deviation=f"; mean ± standard deviation over {seeds}" if seeds else "",
        label=metric.label,
        unit=metric.in_change_unit,
    )
    return f"{about}{cost}{devices_text(rows)}, for {len(rows)} members."
