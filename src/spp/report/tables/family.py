"""The family table: one row per budget, beside the dense model."""

from collections.abc import Sequence
from statistics import mean

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import (
    Group,
    dense_groups,
    devices_text,
    group_rows,
    images_text,
    num_searches,
    search_rows,
    seeds_text,
    spread_cell,
)
from spp.report.missing import missing_todos
from spp.report.published import Published
from spp.report.table import Cell, Column, Table
from spp.report.tables.members import member_data

COLUMNS = (
    Column("method", is_number=False),
    Column("asked"),
    Column("params (M)"),
    Column("FLOPs (G)"),
    Column("of dense"),
    Column("top-1 before"),
    Column("top-1 after"),
    Column("to dense"),
)
LEGEND = (
    "FLOPs are multiply-adds of Linear, Conv and matmul for one image; `asked` is the budget, the rest was counted on "
    "the compact model. Top-1 is on the test set of {num_images} images, before and after finetuning{deviation}. "
    "`to dense` is the change of top-1 in points."
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table for each model and data set; mean and deviation where seeds repeat.

    Raises:
        ValueError: if there is no finished member.
    """
    if not record.rows:
        raise ValueError("family: there is no finished member; allowed: a sweep with one at least; see spp status")
    places = list(dict.fromkeys((row["model"], row["data"]) for row in record.rows))
    made = []
    for model, data in places:
        rows = [row for row in record.rows if (row["model"], row["data"]) == (model, data)]
        missing = [member for member in record.missing if (member.model, member.data) == (model, data)]
        name = "family" if len(places) == 1 else file_stem("family", model, data)
        todo = missing_todos(record, missing, published)
        made.append(Table(name, f"{model} on {data}", COLUMNS, _rows(rows), (_legend(rows),), todo, member_data(rows)))
    return made


def _rows(rows: Sequence[Row]) -> tuple[tuple[Cell, ...], ...]:
    dense = (_dense(name, found) for name, found in dense_groups(rows).items())
    return (*dense, *(_cells(group, members) for group, members in group_rows(rows).items()))


def _dense(name: str, dense: Sequence[Row]) -> tuple[Cell, ...]:
    size = (_number(dense[0]["dense_params"] / 1e6), _number(dense[0]["dense_macs"] / 1e9))
    accuracy = spread_cell([row["dense_top1"] for row in dense])
    return (Cell(name), Cell(), *size, Cell("100 %", 100.0), Cell(), accuracy, Cell())


def _cells(group: Group, rows: Sequence[Row]) -> tuple[Cell, ...]:
    share = 100 * mean(row["macs"] / row["dense_macs"] for row in rows)
    change = mean(row["top1"] - row["dense_top1"] for row in rows)
    return (
        Cell(group.setup.short_label),
        Cell(group.budget, group.budget_asked),
        _number(mean(row["params"] for row in rows) / 1e6),
        _number(mean(row["macs"] for row in rows) / 1e9),
        Cell(f"{share:.1f} %", share),
        spread_cell([row["top1_before"] for row in rows]),
        spread_cell([row["top1"] for row in rows]),
        Cell(f"{change:+.1f}", change),
    )


def _number(value: float) -> Cell:
    return Cell(f"{value:.4g}", value)


def _legend(rows: Sequence[Row]) -> str:
    seeds = seeds_text(group_rows(rows).values())
    deviation = f"; mean ± standard deviation over {seeds}" if seeds else ""
    searches = search_rows(rows)
    seconds = sum(row["search_seconds"] for row in searches)
    count = num_searches(searches)
    cost = f" {count} search{'es'[: 2 * (count > 1)]} with the walk, {seconds:.0f} s on "
    about = LEGEND.format(num_images=images_text(rows), deviation=deviation)
    return f"{about}{cost}{devices_text(rows)}, for {len(rows)} members."
