import csv
import re
import shutil
import subprocess

import pytest

from spp.report.published import load_published
from spp.report.reports import REPORTS
from spp.report.table import Cell, Column, Table
from spp.report.table_text import to_csv, to_latex, to_markdown, to_terminal

TABLE = Table(
    "name",
    "A & B",
    (Column("method", is_number=False), Column("top-1 (%)")),
    ((Cell("a_b | c"), Cell("78.9 ± 0.1", 78.9, marks="ab")), (Cell("{x}~^\\"), Cell())),
    ("100 % `of` <it>.", "a: differs."),
    ("cell: spp run x=1 (about 3 GPU-hours)",),
    ({"method": "a_b", "top1": 78.9}, {"method": "x", "seed": None, "top1": None}),
)


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="has 1 cells; allowed: 2"):
        Table("name", "title", TABLE.columns, ((Cell(),),), ())


def test_a_terminal_gets_columns_with_folded_heads():
    columns = (Column("method", is_number=False), Column("KL to dense (nats)"), Column(""))
    rows = ((Cell("spp"), Cell("0.5", marks="a"), Cell("1")), (Cell("taylor"), Cell("0.25"), Cell()))
    table = Table("name", "A & B", columns, rows, ("a: differs.",), ("spp run x=1",))
    assert to_terminal(table).splitlines() == [
        "A & B",
        "",
        "          KL to",
        "          dense",
        "method   (nats)",
        "spp     0.5 [a]  1",
        "taylor     0.25",
        "",
        "a: differs.",
        "",
        "Not run:",
        "- spp run x=1",
    ]


def test_markdown():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "## A & B"
    assert lines[2:6] == [
        "| method | top-1 (%) |",
        "| --- | ---: |",
        r"| a_b \| c | 78.9 ± 0.1 [ab] |",
        r"| {x}~^\\ |  |",
    ]
    assert lines[-1] == "- cell: spp run x=1 (about 3 GPU-hours)"


HOSTILE = Table(
    "hostile",
    "two\nlines",
    (Column("method | x", is_number=False), Column("top-1")),
    ((Cell("a\\|b\nc <img> *d* `e`"), Cell("1")), (Cell("[x] 中 ≤ é"), Cell())),
    ("a\n# b",),
    ("cell\nx: spp run",),
)


def test_odd_letters_do_not_break_markdown():
    lines = to_markdown(HOSTILE).splitlines()
    assert lines[0] == "## two lines"
    assert lines[2:6] == [r"| method \| x | top-1 |", "| --- | ---: |", LINE, "| [x] 中 ≤ é |  |"]
    assert "a # b" in lines
    assert lines[-1] == "- cell x: spp run"


LINE = r"| a\\\|b c \<img> \*d\* \`e\` | 1 |"
"""Both the backslash and the bar are escaped: the bar alone would end the cell."""


def test_odd_letters_do_not_break_latex():
    lines = to_latex(HOSTILE).splitlines()
    assert r"{[}x] ? $\le$ é &  \\" in lines
    assert lines[-1] == "% not run: cell x: spp run"


def test_csv_holds_the_tidy_rows():
    assert list(csv.DictReader(to_csv(TABLE).splitlines())) == [
        {"method": "a_b", "top1": "78.9", "seed": ""},
        {"method": "x", "top1": "", "seed": ""},
    ]


def test_latex_says_what_its_preamble_needs_and_keeps_commands_out_of_the_print():
    lines = to_latex(TABLE).splitlines()
    assert lines[0].startswith("%")
    assert "booktabs" in lines[0]
    assert r"a\_b | c & 78.9 $\pm$ 0.1\textsuperscript{ab} \\" in lines
    assert lines[-1] == "% not run: cell: spp run x=1 (about 3 GPU-hours)"


def test_latex_compiles(compared, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed; remedy: texlive-latex-recommended")
    tables = [table for report in REPORTS.values() for table in report.tables(compared, load_published())]
    texts = [to_latex(table) for table in (TABLE, HOSTILE, *tables)]
    preamble = texts[0].splitlines()[0].removeprefix("% ")
    body = "\n\\clearpage\n".join(texts)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n" + preamble + "\n\\begin{document}\n" + body + "\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"\((\d+) pages", done.stdout)[1]) >= len(texts)


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|x", "-a", "@SUM(A1)", "\tx", "=", "- 1"])
def test_no_spreadsheet_takes_a_cell_of_the_csv_for_a_formula(cell):
    rows = list(csv.reader(to_csv(Table("n", "t", TABLE.columns, ((Cell(cell), Cell("-0.5")),), ())).splitlines()))
    assert rows[1] == [f"'{cell}", "-0.5"]
    tidy = Table("n", "t", TABLE.columns, (), (), data=({"method": cell, "top1": -1e-3, "delta": "+0.25"},))
    assert list(csv.reader(to_csv(tidy).splitlines()))[1] == [f"'{cell}", "-0.001", "+0.25"]


def test_tables_command_no_terminal():
    hostile = Table("n", "\x1b[2Jt", TABLE.columns, ((Cell("\x1b]0;x\x07"), Cell("1")),), ("\x9b",), ("\u202e",))
    for text in (to_markdown(hostile), to_latex(hostile)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
