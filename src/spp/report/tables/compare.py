"""The comparison: methods down, budgets across, mean and deviation over seeds, and what the searches cost."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from spp.record.record import Asked, Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import (
    Group,
    Setup,
    dense_groups,
    devices_text,
    epochs_text,
    group_rows,
    images_text,
    missed,
    num_searches,
    search_rows,
    seeds_text,
    size_text,
    spread_cell,
)
from spp.report.missing import budget_todo, missing_todos
from spp.report.published import Published
from spp.report.table import Cell, Column, Table
from spp.report.tables.members import member_data

LEGEND = (
    "Top-1 on the test set of {num_images} images{deviation}, before and after finetuning. A column is a budget in "
    "achieved {kind}{farthest}. Epochs are those of search and walk, and of finetuning. The last columns are what "
    "searches and walks took on {devices}: their number over all seeds, seconds in all, seconds per member{gpu}."
)
FARTHEST = "; the member farthest from its budget is off by {worst:.1f} % of the dense model"


def tables(record: Record, published: Published) -> list[Table]:
    """One table for each model, data set and budget kind.

    Raises:
        ValueError: if there is no finished member.
    """
    if not record.rows:
        raise ValueError("compare: there is no finished member; allowed: a sweep with one at least; see spp status")
    places: dict[tuple[str, str, str], list[Row]] = {}
    for row in record.rows:
        places.setdefault((row["model"], row["data"], row["budget_kind"]), []).append(row)
    made = []
    for (model, data, kind), rows in places.items():
        name = "compare" if len(places) == 1 else file_stem("compare", model, data, kind)
        made.append(_table(name, f"{model} on {data}, budgets in {kind}", rows, record, published))
    return made


def _table(name: str, title: str, rows: Sequence[Row], record: Record, published: Published) -> Table:
    groups, kind = group_rows(rows), rows[0]["budget_kind"]
    budgets = sorted({row["budget_asked"] for row in rows}, reverse=True)
    has_gpu = any(row["search_gpu_seconds"] for row in rows)
    columns = (
        Column("method", is_number=False),
        *(Column(f"{size_text(budget)} after") for budget in budgets),
        *(Column(f"{size_text(budget)} before") for budget in budgets),
        Column("epochs"),
        Column("searches"),
        Column("total (s)"),
        Column("per member (s)"),
        *((Column("total (GPU-s)"), Column("per member (GPU-s)")) if has_gpu else ()),
    )
    blank = [Cell()] * (len(columns) - 1 - len(budgets))
    lines = [
        (Cell(label), *[spread_cell([row["dense_top1"] for row in found])] * len(budgets), *blank)
        for label, found in dense_groups(rows).items()
    ]
    todo = []
    for setup in dict.fromkeys(group.setup for group in groups):
        by_budget = {group.budget_asked: members for group, members in groups.items() if group.setup == setup}
        accuracies = _accuracies(by_budget, budgets, _budgets_of(setup, kind, record.out_of_reach))
        lines.append((Cell(setup.short_label), *accuracies, *_cost(by_budget, has_gpu)))
        todo += _not_run(setup, kind, by_budget, budgets, record)
    here = [m for m in record.missing if (m.model, m.data, m.budget_kind) == _place(rows[0])]
    todo += missing_todos(record, here, published)
    return Table(name, title, columns, tuple(lines), (_legend(rows, has_gpu),), tuple(todo), member_data(rows))


def _place(row: Row) -> tuple[str, str, str]:
    return row["model"], row["data"], row["budget_kind"]


def _budgets_of(setup: Setup, kind: str, members: Iterable[Asked]) -> set[float]:
    """The budgets of one kind that members of a setup were asked for."""
    return {
        m.budget_asked
        for m in members
        if Setup(m.method, m.preset, m.variant, m.model, m.data) == setup and m.budget_kind == kind
    }


def _accuracies(
    by_budget: Mapping[float, Sequence[Row]], budgets: Sequence[float], out_of_reach: Collection[float]
) -> list[Cell]:
    return [
        spread_cell([row[column] for row in by_budget[budget]])
        if budget in by_budget
        else Cell("out of reach" if budget in out_of_reach else "not run")
        for column in ("top1", "top1_before")
        for budget in budgets
    ]


def _not_run(
    setup: Setup, kind: str, by_budget: Mapping[float, Sequence[Row]], budgets: Sequence[float], record: Record
) -> list[str]:
    """How to fill the budgets that nobody asked of a setup; those that were asked for are told of elsewhere."""
    rows = [row for members in by_budget.values() for row in members]
    asked = _budgets_of(setup, kind, [*record.missing, *record.out_of_reach])
    absent = [budget for budget in budgets if budget not in by_budget and budget not in asked]
    return [budget_todo(Group(setup, kind, budget), rows) for budget in absent]


def _cost(by_budget: Mapping[float, Sequence[Row]], has_gpu: bool) -> list[Cell]:
    rows = [row for members in by_budget.values() for row in members]
    searches, count = search_rows(rows), num_searches(rows)
    cells = [Cell(epochs_text(rows)), Cell(str(count), count)]
    for column in ("search_seconds", "search_gpu_seconds") if has_gpu else ("search_seconds",):
        total = sum(row[column] for row in searches)
        cells += [Cell(f"{total:.0f}", total), Cell(f"{total / len(rows):.1f}", total / len(rows))]
    return cells


def _legend(rows: Sequence[Row], has_gpu: bool) -> str:
    seeds, kind = seeds_text(group_rows(rows).values()), rows[0]["budget_kind"]
    return LEGEND.format(
        num_images=images_text(rows),
        deviation=f", mean ± standard deviation over {seeds}" if seeds else "",
        kind=kind,
        farthest="" if kind == "units" else FARTHEST.format(worst=max(missed(row) for row in rows)),
        devices=devices_text(rows),
        gpu=", and the same in GPU-seconds" if has_gpu else "",
    )
