"""A table as a picture, for tables that have no picture of their own."""

import textwrap
from collections.abc import Sequence
from typing import Any

from spp.report.drawing import Drawing, house_style, new_figure, text_width
from spp.report.palette import shorten
from spp.report.table import Column, Table

FONT_PT = 8.0
LINE_IN = 0.2
GAP_IN = 0.22
MARGIN_IN = 0.15
MAX_LETTERS = 44
"""Of a cell; longer ones are cut in their middle."""
MAX_HEAD_LETTERS = 14
"""Of a line of a head, which is broken between words."""
MIN_WIDTH_IN = 5.0
LETTERS_PER_IN = 15.5
"""Of running text in FONT_PT."""
MAX_ROWS = 150


@house_style()
def draw(table: Table) -> Drawing:
    """The table between rules, its title above and its legend below, as wide as its columns need."""
    rows = table.rows[:MAX_ROWS]
    heads = [textwrap.wrap(column.title, MAX_HEAD_LETTERS) or [""] for column in table.columns]
    texts = [[_text(cell.text, cell.marks) for cell in row] for row in rows]
    widths = _widths(heads, texts)
    width = max(MIN_WIDTH_IN, sum(widths) + GAP_IN * (len(widths) - 1) + 2 * MARGIN_IN)
    legend = _legend(table, width)
    num_head_lines = max((len(head) for head in heads), default=1)
    height = 2 * MARGIN_IN + LINE_IN * (1.6 + num_head_lines + len(rows) + 1.0 + 0.85 * len(legend))
    figure = new_figure(width, height)
    figure.set_layout_engine()  # none: the places are computed here
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    top = MARGIN_IN + 0.6 * LINE_IN
    _write(axes, MARGIN_IN, top, table.title, weight="bold")
    head_top = top + 1.4 * LINE_IN
    body_top = head_top + num_head_lines * LINE_IN
    lefts = [MARGIN_IN + sum(widths[:place]) + GAP_IN * place for place in range(len(widths))]
    for head, column, left, column_width in zip(heads, table.columns, lefts, widths, strict=True):
        for number, line in enumerate(head):
            _write_cell(
                axes, left, column_width, head_top + (num_head_lines - len(head) + number) * LINE_IN, line, column
            )
    for number, row in enumerate(texts):
        for text, column, left, column_width in zip(row, table.columns, lefts, widths, strict=True):
            _write_cell(axes, left, column_width, body_top + number * LINE_IN + 0.1 * LINE_IN, text, column)
    bottom = body_top + len(rows) * LINE_IN
    right = lefts[-1] + widths[-1] if widths else width - MARGIN_IN
    for y, thickness in ((head_top, 1.0), (body_top, 0.6), (bottom + 0.2 * LINE_IN, 1.0)):
        axes.plot([MARGIN_IN, right], [y - 0.6 * LINE_IN] * 2, color="black", linewidth=thickness)
    for number, line in enumerate(legend):
        _write(axes, MARGIN_IN, bottom + (0.6 + 0.85 * number) * LINE_IN, line, color="0.25", size=FONT_PT - 0.5)
    return Drawing(table.name, table.title, figure, " ".join(table.legend), tuple(table.data))


def _text(text: str, marks: str) -> str:
    return shorten(text, MAX_LETTERS) + (f" ({marks})" if marks else "")


def _widths(heads: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> list[float]:
    """Width of every column in inches."""
    columns = [[*head, *(row[place] for row in texts)] for place, head in enumerate(heads)]
    # The longest by letters is the widest but for a letter or two, and only a few need be measured.
    return [
        max([0.2, *(text_width(text, FONT_PT) + 0.03 for text in sorted(set(column), key=len)[-5:])])
        for column in columns
    ]


def _legend(table: Table, width: float) -> list[str]:
    sentences = [*table.legend]
    if len(table.rows) > MAX_ROWS:
        sentences.append(f"{len(table.rows) - MAX_ROWS} more rows are in the table itself.")
    if table.todo:
        sentences.append(f"Not run: {len(table.todo)}; the table as text has the commands that fill the gaps.")
    num_letters = int((width - 2 * MARGIN_IN) * LETTERS_PER_IN)
    return [line for sentence in sentences for line in textwrap.wrap(sentence, num_letters)]


def _write_cell(axes: Any, left: float, width: float, y: float, text: str, column: Column) -> None:
    if column.is_number:
        _write(axes, left + width, y, text, ha="right")
    else:
        _write(axes, left, y, text)


def _write(axes: Any, x: float, y: float, text: str, *, size: float = FONT_PT, **look: Any) -> None:
    if text:
        axes.text(x, y, text, fontsize=size, va="center", **look)
