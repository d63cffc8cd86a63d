"""The comparison: methods down, budgets across, mean and deviation over seeds, and what the searches cost."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from spp.record.metrics import REPAIRED, MetricInfo, counts_text, headline, values_of
from spp.record.record import Record, RequestedMember
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import (
    Combination,
    Group,
    Workload,
    by_combination,
    by_workload,
    dense_cell,
    dense_groups,
    devices_text,
    epochs_text,
    group_rows,
    metric_cell,
    missed,
    num_searches,
    search_rows,
    seeds_text,
    size_text,
    tasks_to_name,
)
from spp.report.missing import budget_todo, missing_todos
from spp.report.published import Published
from spp.report.table import Cell, Column, Table
from spp.report.tables.family import WHEN, metric_places
from spp.report.tables.members import member_data
from spp.report.taught import unequal_teaching

LEGEND = (
    "{metric} on the test set of {counts} {samples}{deviation}, before{repaired} and after finetuning. A column is a "
    "budget in achieved {kind}{farthest}. Epochs are those of search and walk, and of finetuning. The last columns are "
    "what searches and walks took on {devices}: their number over all seeds, seconds in all, seconds per member{gpu}."
)
FARTHEST = "; the member farthest from its budget is off by {worst:.1f} % of the dense model"


def tables(record: Record, published: Published) -> list[Table]:
    """One table for each workload and budget kind.

    Raises:
        ValueError: if there is no finished member.
    """
    if not record.rows:
        raise ValueError("compare: there is no finished member; allowed: a sweep with one at least; see spp status")
    task_words = tasks_to_name(record.rows)
    found = [
        (workload, kind, [row for row in rows if row["budget_kind"] == kind])
        for workload, rows in by_workload(record.rows).items()
        for kind in dict.fromkeys(row["budget_kind"] for row in rows)
    ]
    made = []
    for workload, kind, rows in found:
        words = task_words[workload.task]
        name = "compare" if len(found) == 1 else file_stem("compare", *words, workload.model, workload.data, kind)
        title = ", ".join([workload.title, *words, f"budgets in {kind}"])
        made.append(_table(name, title, rows, record, published))
    return made


def _table(name: str, title: str, rows: Sequence[Row], record: Record, published: Published) -> Table:
    groups, kind, metric = group_rows(rows), rows[0]["budget_kind"], headline(rows)
    budgets = sorted({row["budget_asked"] for row in rows}, reverse=True)
    has_gpu = any(row["search_gpu_seconds"] for row in rows)
    places = sorted(metric_places(rows), key=lambda place: (place[0] != metric, list(WHEN)[::-1].index(place[1])))
    columns = (
        Column("method", is_number=False),
        *(
            Column(f"{_label(shown, metric)}{size_text(budget)} {WHEN[column]}")
            for shown, column in places
            for budget in budgets
        ),
        Column("epochs"),
        Column("searches"),
        Column("total (s)"),
        Column("per member (s)"),
        *((Column("total (GPU-s)"), Column("per member (GPU-s)")) if has_gpu else ()),
    )
    blank = [Cell()] * (len(columns) - 1 - len(budgets))
    lines = [
        (Cell(label), *[dense_cell(found, metric)] * len(budgets), *blank)
        for label, found in dense_groups(rows).items()
    ]
    todo = []
    for combination in dict.fromkeys(group.combination for group in groups):
        by_budget = {
            group.budget_asked: members for group, members in groups.items() if group.combination == combination
        }
        out_of_reach = _budgets_of(combination, kind, record.out_of_reach)
        values = _metric_cells(by_budget, budgets, out_of_reach, places)
        lines.append((Cell(combination.short_label), *values, *_cost(by_budget, has_gpu)))
        todo += _not_run(combination, kind, by_budget, budgets, record)
    workload = Workload.of(rows[0])
    here = [m for m in record.missing if (Workload.of_source(m), m.budget_kind) == (workload, kind)]
    todo += missing_todos(record, here, published)
    taught = unequal_teaching({of.short_label: members for of, members in by_combination(rows).items()})
    legend = (_legend(rows, metric, has_gpu), *taught)
    return Table(name, title, columns, tuple(lines), legend, tuple(todo), member_data(rows))


def _label(shown: MetricInfo, headline: MetricInfo) -> str:
    """What stands before a budget in the head of a column: nothing for the headline."""
    return "" if shown == headline else f"{shown.column} "


def _budgets_of(combination: Combination, kind: str, members: Iterable[RequestedMember]) -> set[float]:
    """The budgets of one kind that members of a combination were asked for."""
    return {
        member.budget_asked
        for member in members
        if Combination.of_source(member) == combination and member.budget_kind == kind
    }


def _metric_cells(
    by_budget: Mapping[float, Sequence[Row]],
    budgets: Sequence[float],
    out_of_reach: Collection[float],
    places: Sequence[tuple[MetricInfo, str]],
) -> list[Cell]:
    return [
        metric_cell(by_budget[budget], metric, column)
        if budget in by_budget
        else Cell("out of reach" if budget in out_of_reach else "not run")
        for metric, column in places
        for budget in budgets
    ]


def _not_run(
    combination: Combination,
    kind: str,
    by_budget: Mapping[float, Sequence[Row]],
    budgets: Sequence[float],
    record: Record,
) -> list[str]:
    """How to fill the budgets that nobody asked of a combination; those that were asked for are told of elsewhere."""
    rows = [row for members in by_budget.values() for row in members]
    asked = _budgets_of(combination, kind, [*record.missing, *record.out_of_reach])
    absent = [budget for budget in budgets if budget not in by_budget and budget not in asked]
    return [budget_todo(Group(combination, kind, budget), rows) for budget in absent]


def _cost(by_budget: Mapping[float, Sequence[Row]], has_gpu: bool) -> list[Cell]:
    rows = [row for members in by_budget.values() for row in members]
    searches, count = search_rows(rows), num_searches(rows)
    cells = [Cell(epochs_text(rows)), Cell(str(count), count)]
    for column in ("search_seconds", "search_gpu_seconds") if has_gpu else ("search_seconds",):
        total = sum(row[column] for row in searches)
        cells += [Cell(f"{total:.0f}", total), Cell(f"{total / len(rows):.1f}", total / len(rows))]
    return cells


def _legend(rows: Sequence[Row], metric: MetricInfo, has_gpu: bool) -> str:
    seeds, kind = seeds_text(group_rows(rows).values()), rows[0]["budget_kind"]
    return LEGEND.format(
        metric=metric.description,
        counts=counts_text(rows, metric.name),
        samples=metric.of,
        repaired=", repaired in closed form," if values_of(rows, metric.name, REPAIRED) else "",
        deviation=f", mean ± standard deviation over {seeds}" if seeds else "",
        kind=kind,
        farthest="" if kind in ("units", "weights") else FARTHEST.format(worst=max(missed(row) for row in rows)),
        devices=devices_text(rows),
        gpu=", and the same in GPU-seconds" if has_gpu else "",
    )
