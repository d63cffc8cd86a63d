"""The retrieval table: CLIP on COCO, ours beside the published; and any other images with captions likewise."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from spp.plan.numbers import FLOPS_SCALES
from spp.record.metrics import AFTER, DENSE, MetricInfo, metrics_of, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.footnotes import Footnotes
from spp.report.groups import (
    Workload,
    by_workload,
    dense_groups,
    flops_unit_of,
    group_rows,
    metric_cell,
)
from spp.report.missing import missing_todos
from spp.report.published import Published
from spp.report.table import Cell, Column, Table
from spp.report.tables import beside

TASK = "retrieval"
COMMANDS = (
    "The published values are of CLIP-Large: spp run experiment=table6_clip_large paths.data=DIR model.weights=FILE "
    "data.tokenizer=DIR, and experiment=upop_clip_large likewise."
)
RECALLS = (
    "Recall at k in percent over the whole gallery of the test set, ties at their mean rank; mean and deviation over "
    "the seeds. FLOPs and parameters are those of one pair of "
    "encoders, without the temperature's product."
)


def rows_of(record: Record) -> list[Row]:
    """The members that retrieve."""
    return [row for row in record.rows if row["task"] == TASK]


def tables(record: Record, published: Published) -> list[Table]:
    """The published values with what we have of them, then all recalls of every model and data set."""
    return [_beside_published(record, published), *_recalls(record, published)]


def _beside_published(record: Record, published: Published) -> Table:
    values = published.of_table(TASK)
    lines = []
    for model in dict.fromkeys(value.model for value in values):
        rows = [row for row in rows_of(record) if (row["model"], row["data"]) == (model, "coco")]
        lines += beside.lines_of_model(model, rows, [value for value in values if value.model == model], published)
    notes = Footnotes()
    cells = beside.cells(lines, published, notes)
    legend = (COMMANDS, *beside.legend(lines[-1].metric), *beside.sources(lines), *notes.legend())
    title = "Retrieval: CLIP on COCO"
    return Table(TASK, title, beside.columns(lines[-1].metric, lines), cells, legend, (), tuple(beside.tidy(lines)))


def _recalls(record: Record, published: Published) -> Iterator[Table]:
    for workload, rows in by_workload(rows_of(record)).items():
        missing = [member for member in record.missing if Workload.of_source(member) == workload]
        lines = [("dense", "", found, DENSE) for found in dense_groups(rows).values()]
        lines += [(group.combination.label, group.budget, found, AFTER) for group, found in group_rows(rows).items()]
        infos, unit = metrics_of(rows), flops_unit_of(rows)
        yield Table(
            file_stem(TASK, workload.model, workload.data),
            f"Recalls: {workload.title}",
            (*_HEAD, Column(f"FLOPs ({unit})"), *(Column(info.column) for info in infos), Column("seeds")),
            tuple(_cells(*line, infos, FLOPS_SCALES[unit]) for line in lines),
            (RECALLS,),
            missing_todos(record, missing, published),
            tuple(_tidy(workload, *line, infos) for line in lines),
        )


_HEAD = (
    Column("method", is_number=False),
    Column("budget asked", is_number=False),
    Column("params (M)"),
)


def _sizes(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """Parameters and multiply-adds, mean over the rows."""
    prefix = "dense_" if column == DENSE else ""
    return mean(row[f"{prefix}params"] for row in rows), mean(row[f"{prefix}macs"] for row in rows)


def _cells(
    label: str, budget: str, rows: Sequence[Row], column: str, infos: Sequence[MetricInfo], scale: float
) -> tuple[Cell, ...]:
    params, macs = _sizes(rows, column)
    recalls = (metric_cell(rows, info, column) for info in infos)
    seeds = len({row["seed"] for row in rows})
    sizes = (Cell(f"{params / 1e6:.4g}", params), Cell(f"{macs / scale:.4g}", macs))
    return (Cell(label), Cell(budget), *sizes, *recalls, Cell(str(seeds), seeds))


def _tidy(
    workload: Workload, label: str, budget: str, rows: Sequence[Row], column: str, infos: Sequence[MetricInfo]
) -> Mapping[str, Any]:
    params, macs = _sizes(rows, column)
    recalls = {info.name: values_of(rows, info.name, column) for info in infos}
    means = {name: mean(values) if values else None for name, values in recalls.items()}
    about = {"model": workload.model, "data": workload.data, "method": label, "budget": budget}
    return {**about, "params": params, "macs": macs, **means, "num_seeds": len({row["seed"] for row in rows})}
