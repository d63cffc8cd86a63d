"""A table as data: what markdown, LaTeX, csv and html are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One cell; empty where nothing is known.

    text: what is shown. value: what the column is sorted by; None sorts last. marks: footnote letters such as "ab",
    explained in the legend. hint: more words for who asks, such as the source of a published value.
    """

    text: str = ""
    value: float | None = None
    marks: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column; numbers are set to the right."""

    title: str
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """A table with what a reader needs beside it.

    name: stem of its files. legend: sentences under the table, footnotes included ("a: ..."). todo: one line per thing
    that was not run. data: the same as tidy rows, which is what the csv holds.

    Raises:
        ValueError: if a row has not one cell per column.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    legend: tuple[str, ...]
    todo: tuple[str, ...] = ()
    data: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"rows: one of {self.name} has {len(row)} cells; allowed: {len(self.columns)}, as columns"
                )


def insert_column(table: Table, position: int, column: Column, cells: Sequence[Cell]) -> Table:
    """The table with one more column; `cells` has one for each row."""
    rows = tuple((*row[:position], cell, *row[position:]) for row, cell in zip(table.rows, cells, strict=True))
    return replace(table, columns=(*table.columns[:position], column, *table.columns[position:]), rows=rows)
