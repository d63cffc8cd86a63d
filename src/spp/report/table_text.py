"""Tables as text: for a terminal, as Markdown, LaTeX and csv."""

import csv
import io
import re
import textwrap
from collections.abc import Sequence

from spp.report.table import Cell, Table
from spp.text import visible

WIDE = 8
"""From so many columns on a LaTeX table is shrunk to the width of the text."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "Γ": r"$\Gamma$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "\u00d7": r"$\times$",
    "µ": r"$\mu$",
    "[": "{[}",  # at the beginning of a line it would be taken for what belongs to \\ before it
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_LAST_LATIN = "\u024f"
"""Behind it LaTeX knows few letters; it stops at others than those above and dashes and quotes."""
_DASHES_AND_QUOTES = "\u2013\u2014\u2018\u2019\u201c\u201d"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets carry out."""


def to_markdown(table: Table) -> str:
    """A section: heading, table, legend, and what was not run."""
    head = [column.title for column in table.columns]
    rule = ["---:" if column.is_number else "---" for column in table.columns]
    body = [[_plain(cell) for cell in row] for row in table.rows]
    lines = "\n".join("| " + " | ".join(line) + " |" for line in ([_markdown(title) for title in head], rule, *body))
    parts = [f"## {_markdown(table.title)}", lines, *map(_one_line, table.legend)]
    if table.todo:
        parts.append("\n".join(["Not run:", "", *(f"- {_markdown(line)}" for line in table.todo)]))
    return "\n\n".join(parts) + "\n"


def to_terminal(table: Table) -> str:
    """The same for reading: columns as wide as their cells, with long heads on several lines."""
    rows = [
        [_one_line(f"{cell.text} [{cell.marks}]" if cell.marks else cell.text) for cell in row] for row in table.rows
    ]
    heads, widths = [], []
    for place, column in enumerate(table.columns):
        width = max(map(len, (*column.title.split(), *(row[place] for row in rows))), default=1)
        heads.append(textwrap.wrap(column.title, width, break_on_hyphens=False) or [""])
        widths.append(max(map(len, (*heads[-1], *(row[place] for row in rows)))))
    height = max(map(len, heads))
    lines = [*zip(*([""] * (height - len(head)) + head for head in heads), strict=True), *rows]
    body = "\n".join(
        "  ".join(
            f"{text:>{width}}" if column.is_number else f"{text:<{width}}"
            for text, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    )
    parts = [_one_line(table.title), body, *map(_one_line, table.legend)]
    if table.todo:
        parts.append("\n".join(["Not run:", *(f"- {_one_line(line)}" for line in table.todo)]))
    return "\n\n".join(parts) + "\n"


def _plain(cell: Cell) -> str:
    return _markdown(f"{cell.text} [{cell.marks}]" if cell.marks else cell.text)


def _markdown(text: str) -> str:
    return re.sub(r"[\\|*`<]", r"\\\g<0>", _one_line(text))


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def to_latex(table: Table) -> str:
    """A table environment for booktabs; the first line says what the preamble needs, what was not run is a comment."""
    layout = "".join("r" if column.is_number else "l" for column in table.columns)
    is_wide = len(table.columns) >= WIDE
    head = " & ".join(_latex(column.title) for column in table.columns)
    body = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    tabular = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", head + r" \\", r"\midrule", *body]
    tabular += [r"\bottomrule", r"\end{tabular}"]
    lines = [
        r"% \usepackage[T1]{fontenc} \usepackage{textcomp,booktabs,graphicx}",
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{_latex(table.title)}. {' '.join(_latex(line) for line in table.legend)}}}",
        rf"\label{{tab:{table.name}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if is_wide else []),
        *tabular,
        *(["}"] if is_wide else []),
        r"\end{table}",
        *(f"% not run: {_one_line(line)}" for line in table.todo),
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    marks = rf"\textsuperscript{{{_latex(cell.marks)}}}" if cell.marks else ""
    return _latex(cell.text) + marks


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter) or _known(letter) for letter in _one_line(text))


def _known(letter: str) -> str:
    return letter if letter <= _LAST_LATIN or letter in _DASHES_AND_QUOTES else "?"


def to_csv(table: Table) -> str:
    """The tidy rows; every column that any of them has, None is empty. Without any, the table as it is shown."""
    if not table.data:
        return _as_csv([column.title for column in table.columns], [[cell.text for cell in row] for row in table.rows])
    names = list(dict.fromkeys(name for row in table.data for name in row))
    return _as_csv(names, [[row.get(name) for name in names] for row in table.data])


def _as_csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_harmless, head))
    writer.writerows([map(_harmless, row) for row in rows])
    return text.getvalue()


def _harmless(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it."""
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
