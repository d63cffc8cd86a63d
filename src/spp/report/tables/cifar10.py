"""CIFAR-10: SPP on masks against DessiLBI on weights; the paper's numbers are not known."""

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.footnotes import Footnotes
from spp.report.groups import by_workload
from spp.report.missing import CIFAR10, FORMULA, hours_text, missing_todos, todo
from spp.report.published import HEADLINE, TASK, Published
from spp.report.table import Table
from spp.report.tables import beside

LEGEND = (
    "The paper compares SPP with DessiLBI on DeiT-Tiny and finds SPP ahead in compression and accuracy; its numbers "
    "are not known. Our vit_cifar is DeiT-Tiny with 6 blocks and patches of 4 x 4 pixels, trained from scratch on "
    "images of 32 x 32. DessiLBI on the weights of whole units is an adaptation of ours."
)
DATA = "cifar10"
METHODS = ("spp", "dessilbi")


def rows_of(record: Record) -> list[Row]:
    """The members that classify CIFAR-10."""
    return [row for row in record.rows if is_here(row)]


def is_here(row: Row) -> bool:
    """Whether a member belongs into this table."""
    return (row["task"], row["data"]) == (TASK, DATA)


def tables(record: Record, published: Published) -> list[Table]:
    """One table for all models on CIFAR-10."""
    rows, lines = rows_of(record), []
    for workload, here in by_workload(rows).items():
        lines += beside.lines_of_model(workload.model, here, published.of_table("cifar10"), published)
    absent = [method for method in METHODS if method not in {row["method"] for row in rows}]
    lines += [beside.Line("vit_cifar", method, HEADLINE, "macs 70 % to 20 %") for method in absent]
    open_ = [
        todo(
            f"{method}, vit_cifar on cifar10, five budgets, one seed",
            f"spp run method={method} {CIFAR10.words} paths.data=DIR",
            hours_text(CIFAR10.training.gpu_hours),
        )
        for method in absent
    ]
    open_ += missing_todos(record, [m for m in record.missing if (m.task, m.data) == (TASK, DATA)], published)
    notes = Footnotes()
    cells = beside.cells(lines, published, notes)
    legend = (*beside.legend(HEADLINE), LEGEND, *([FORMULA] if open_ else []), *notes.legend())
    title = "CIFAR-10: masks against weights"
    return [
        Table("cifar10", title, beside.columns(HEADLINE, lines), cells, legend, tuple(open_), tuple(beside.tidy(lines)))
    ]
