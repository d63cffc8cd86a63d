"""Table 1: ImageNet accuracy of pruned DeiT and Swin, ours beside the published; and any other model likewise."""

from collections.abc import Iterator, Sequence

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.footnotes import Footnotes
from spp.report.missing import FORMULA, missing_todos, value_todo
from spp.report.published import Published
from spp.report.table import Table
from spp.report.tables import beside

OTHERS = "The paper has no numbers of {model} on {data}; what was run of it is shown in the same way."
UNKNOWN = (
    "Of the paper's Table 1 only the values that are quoted elsewhere are known; its dense accuracies, its other "
    "budgets and its other methods are not."
)


def tables(record: Record, published: Published) -> list[Table]:
    """The paper's models on ImageNet, then one table for each other model and data set but CIFAR-10."""
    return [_paper_table(record, published), *_other_tables(record, published)]


def paper_models(published: Published) -> list[str]:
    """The models of Table 1, as Table 6 lists them."""
    return [recipe.model for recipe in published.recipes if recipe.data == published.setting.data]


def rows_of(record: Record) -> list[Row]:
    """What belongs here: all but CIFAR-10, which has a table of its own."""
    return [row for row in record.rows if row["data"] != "cifar10"]


def _paper_table(record: Record, published: Published) -> Table:
    data = published.setting.data
    lines, todo = [], []
    for model in paper_models(published):
        rows = [row for row in record.rows if (row["model"], row["data"]) == (model, data)]
        values = [value for value in published.of_table("table1") if value.model == model]
        lines += beside.lines_of_model(model, rows, values, published)
    for line in lines:
        found = value_todo(line.value, line.preset, published) if line.value and not line.rows else None
        todo += [found] if found and found not in todo else []
    wanted = [m for m in record.missing if m.model in paper_models(published) and m.data == data]
    todo += missing_todos(record, wanted, published)
    return _table("table1", "Table 1: pruned models on ImageNet-1k", lines, published, (UNKNOWN,), todo)


def _other_tables(record: Record, published: Published) -> Iterator[Table]:
    rows, models = rows_of(record), paper_models(published)
    for model, data in dict.fromkeys((row["model"], row["data"]) for row in rows):
        if model in models and data == published.setting.data:
            continue
        here = [row for row in rows if (row["model"], row["data"]) == (model, data)]
        lines = beside.lines_of_model(model, here, [], published)
        todo = missing_todos(record, [m for m in record.missing if (m.model, m.data) == (model, data)], published)
        more = (OTHERS.format(model=model, data=data),)
        yield _table(file_stem("table1", model, data), f"As Table 1: {model} on {data}", lines, published, more, todo)


def _table(
    name: str,
    title: str,
    lines: Sequence[beside.Line],
    published: Published,
    more: Sequence[str],
    todo: Sequence[str],
) -> Table:
    notes = Footnotes()
    rows = beside.cells(lines, published, notes)
    legend = (*beside.LEGEND, *beside.sources(lines), *more, *([FORMULA] if todo else []))
    return Table(name, title, beside.COLUMNS, rows, (*legend, *notes.legend()), tuple(todo), tuple(beside.tidy(lines)))
