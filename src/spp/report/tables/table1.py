"""Table 1: ImageNet accuracy of pruned DeiT and Swin, ours beside the published; and any other model likewise."""

from collections.abc import Iterator, Sequence

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.footnotes import Footnotes
from spp.report.groups import Workload, by_workload, tasks_to_name
from spp.report.missing import FORMULA, missing_todos, value_todo
from spp.report.published import TASK, Published
from spp.report.table import Table
from spp.report.tables import beside, cifar10

OTHERS = "The paper has no numbers of {workload}; what was run of it is shown in the same way."
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
    return [row for row in record.rows if not cifar10.is_here(row)]


def _paper_table(record: Record, published: Published) -> Table:
    lines, todo = [], []
    for model in paper_models(published):
        here = Workload(TASK, model, published.setting.data)
        rows = [row for row in record.rows if Workload.of(row) == here]
        values = [value for value in published.of_table("table1") if value.model == model]
        lines += beside.lines_of_model(model, rows, values, published)
    for line in lines:
        found = value_todo(line.value, line.preset, published) if line.value and not line.rows else None
        todo += [found] if found and found not in todo else []
    wanted = [member for member in record.missing if _is_of_paper(Workload.of_source(member), published)]
    todo += missing_todos(record, wanted, published)
    return _table("table1", "Table 1: pruned models on ImageNet-1k", lines, published, (UNKNOWN,), todo)


def _is_of_paper(workload: Workload, published: Published) -> bool:
    return (workload.task, workload.data) == (TASK, published.setting.data) and workload.model in paper_models(
        published
    )


def _other_tables(record: Record, published: Published) -> Iterator[Table]:
    rows = rows_of(record)
    task_words = tasks_to_name(rows)
    for workload, here in by_workload(rows).items():
        if _is_of_paper(workload, published):
            continue
        lines = beside.lines_of_model(workload.model, here, [], published)
        missing = [member for member in record.missing if Workload.of_source(member) == workload]
        words = task_words[workload.task]
        yield _table(
            file_stem("table1", *words, workload.model, workload.data),
            f"As Table 1: {', '.join([workload.title, *words])}",
            lines,
            published,
            (OTHERS.format(workload=workload.title),),
            missing_todos(record, missing, published),
        )


def _table(
    name: str,
    title: str,
    lines: Sequence[beside.Line],
    published: Published,
    more: Sequence[str],
    todo: Sequence[str],
) -> Table:
    notes, metric = Footnotes(), lines[0].metric
    rows = beside.cells(lines, published, notes)
    legend = (*beside.legend(metric), *beside.sources(lines), *more, *([FORMULA] if todo else []), *notes.legend())
    return Table(name, title, beside.columns(metric, lines), rows, legend, tuple(todo), tuple(beside.tidy(lines)))
