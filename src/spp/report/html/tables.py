"""A table as HTML: sorted by its heads, scrolled inside its box, with hints, legend and commands."""

from collections.abc import Sequence

from spp.report.html.text import copyable, element, paragraphs, text
from spp.report.table import Cell, Column, Table

NUM_OPEN_COMMANDS = 3
"""A longer list of commands is folded."""


def table_html(table: Table, name: str, *, is_titled: bool = True) -> str:
    """The whole block of one table, whose title has the id `name`; sorting acts on `data-value` of the cells.

    `is_titled`: whether the title is seen; it is always read aloud.
    """
    heads = "".join(_head(column) for column in table.columns)
    rows = "".join(
        element("tr", "".join(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)))
        for row in table.rows
    )
    body = element("thead", element("tr", heads)) + element("tbody", rows)
    # tabindex: who has no pointer scrolls a wide table with the arrow keys.
    box = element(
        "div", element("table", body, aria_labelledby=name), cls="box", tabindex=0, role="region", aria_labelledby=name
    )
    if not table.rows:
        box = element("p", "No row yet.", cls="empty")
    legend = element("div", paragraphs(table.legend), cls="legend") if table.legend else ""
    return element(
        "div",
        element("h3", text(table.title), id=name, cls=None if is_titled else "unseen")
        + box
        + legend
        + todo_html(table.todo),
        cls="table",
    )


def todo_html(lines: Sequence[str]) -> str:
    """Commands that would fill what is missing, one per line."""
    if not lines:
        return ""
    count = f"Not run: {len(lines)} command{'s' if len(lines) > 1 else ''}"
    items = element("ul", "".join(element("li", _todo_item(line)) for line in lines))
    is_open = "" if len(lines) <= NUM_OPEN_COMMANDS else None
    return element("details", element("summary", count) + items, cls="todo", open=is_open)


def _todo_item(line: str) -> str:
    """A line of spp.report.missing.todo, "what: command (cost)", of which the command alone is copied."""
    what, found, rest = line.partition(": spp ")
    if not found:
        return copyable(line)
    command, _, cost = rest.partition(" (")
    words = element("strong", text(what)) + " " + element("span", text(cost.removesuffix(")")), cls="state")
    return element("div", words) + copyable(f"spp {command}")


def _head(column: Column) -> str:
    button = element("button", text(column.title), type="button")
    return element("th", button, scope="col", aria_sort="none", cls="number" if column.is_number else None)


def _cell(cell: Cell, column: Column) -> str:
    shown = text(cell.text) + (element("sup", text(cell.marks)) if cell.marks else "")
    if cell.hint:
        # A title until the script turns it into a hint that keys and fingers reach as well.
        shown = element("span", shown or "·", cls="hint", title=cell.hint)
    value = None if cell.value is None else repr(float(cell.value))
    return element("td", shown, cls="number" if column.is_number else None, data_value=value)
