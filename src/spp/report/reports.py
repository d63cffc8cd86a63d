"""All reports by name: their tables, and the drawings that belong to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.published import Published
from spp.report.table import Table
from spp.report.tables import (
    cifar10,
    compare,
    cost,
    family,
    figure1,
    figure2,
    llm,
    retrieval,
    stability,
    table1,
    table6,
    table7,
    table8,
)

if TYPE_CHECKING:
    from spp.report.drawing import Drawing

Tables = Callable[[Record, Published], Sequence[Table]]
Drawings = Callable[[Record, Published], "list[Drawing]"]


@dataclass(frozen=True)
class Report:
    """One thing to ask for by name.

    tables: raises ValueError where there is nothing to show. drawings: what draws its pictures, each an empty list
    where the record has nothing for it; reports that share a picture share what draws it. None at all: the pictures
    are those of the tables.
    """

    name: str
    title: str
    tables: Tables
    drawings: tuple[Drawings, ...] = ()


class Part(NamedTuple):
    """A report that was made, for the page."""

    report: Report
    tables: Sequence[Table]
    drawings: "Sequence[Drawing]"


def _drawn_by(module: str) -> Drawings:
    """`draw` of a module that is imported when it is needed, as Matplotlib is slow to load."""

    def draw(record: Record, published: Published) -> "list[Drawing]":
        drawings: list[Drawing] = import_module(f"spp.report.figures.{module}").draw(record, published)
        return drawings

    return draw


def _accuracy_of(rows_of: Callable[[Record], Sequence[Row]]) -> Drawings:
    """Accuracy over size of some of the rows."""
    draw_rows = _drawn_by("accuracy")

    def draw(record: Record, published: Published) -> "list[Drawing]":
        return draw_rows(replace(record, rows=rows_of(record)), published)

    return draw


_recall = _accuracy_of(retrieval.rows_of)
_accuracy, _accuracy_on_cifar10 = _accuracy_of(table1.rows_of), _accuracy_of(cifar10.rows_of)

_ALL = (
    Report("table1", "Table 1: accuracy at a budget", table1.tables, (_accuracy,)),
    Report("retrieval", "Retrieval: CLIP on COCO", retrieval.tables, (_recall,)),
    Report("llm", "Language models", llm.tables, (_drawn_by("perplexity"),)),
    Report("cifar10", "CIFAR-10: masks against weights", cifar10.tables, (_accuracy_on_cifar10,)),
    Report("table6", "Table 6: recipes", table6.tables),
    Report("table7", "Table 7: latency", table7.tables),
    Report("table8", "Table 8: kappa and lambda", table8.tables, (_drawn_by("table8"),)),
    Report("cost", "What a search costs", cost.tables, (_drawn_by("cost"),)),
    Report("stability", "Stability across seeds", stability.tables, (_drawn_by("stability"),)),
    Report("figure1", "Figure 1: accuracy, size and search cost", figure1.tables, (_drawn_by("figure1"),)),
    Report("figure2", "Figure 2: the solution path", figure2.tables, (_drawn_by("figure2"),)),
    Report("family", "The family: one row per budget", family.tables, (_accuracy, _accuracy_on_cifar10)),
    Report("compare", "Methods x budgets", compare.tables, (_accuracy, _accuracy_on_cifar10)),
)
REPORTS: Mapping[str, Report] = MappingProxyType({report.name: report for report in _ALL})
