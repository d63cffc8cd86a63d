"""Writes the pages of docs/ that follow from the code: commands, Python, what differs from the released codes.

python scripts/write_reference.py     after a change of the parsers, of `spp.__all__` or of a method's docstring
"""

import argparse
import ast
import re
from pathlib import Path

import spp
from spp.cli.parsers import COMMANDS, build_parsers

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by scripts/write_reference.py; change the code and run it again. -->\n"


def commands_page() -> str:
    """Every command with its words and options, from the parsers themselves."""
    parts = [
        NOTE,
        "# Commands\n",
        "`spp COMMAND --help` says the same. Exit codes: 0 done or submitted, 1 a stage failed, 2 wrong words.\n",
    ]
    for name, parser in build_parsers().items():
        # Of the width of the page, whatever terminal this runs in.
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=110)
        parts.append(f"## spp {name}\n")
        parts.append(f"{COMMANDS[name]}\n")
        usage = parser.format_usage().removeprefix("usage: ").strip()
        parts.append(f"```text\n{usage}\n```\n")
        rows = [_row(action) for action in parser._actions if action.help != argparse.SUPPRESS]
        parts.append("\n".join(["| word | meaning |", "| --- | --- |", *rows]) + "\n")
    parts.append(f"{next(iter(build_parsers().values())).epilog}\n")
    return "\n".join(parts)


def _row(action: argparse.Action) -> str:
    values = {**vars(action), "default": action.default}
    text = (action.help or "") % values
    if action.choices is not None and not action.metavar:
        text = f"{text} ({', '.join(map(str, action.choices))})"
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    words = ", ".join(action.option_strings) or value
    if action.option_strings and value and action.nargs != 0:
        words = f"{words} {value}"
    cells = [cell.replace("|", "\\|") for cell in (f"`{words}`", f"{text[:1].upper()}{text[1:]}")]
    return f"| {cells[0]} | {cells[1]} |"


def python_page() -> str:
    """The names that `import spp` offers; mkdocstrings puts their docstrings in."""
    parts = [NOTE, "# Python\n", "Everything that `import spp` offers. `macs` are multiply-adds of one sample.\n"]
    parts += [f"::: {spp._HOMES[name]}.{name}\n" for name in spp.__all__]
    return "\n".join(parts)


def released_codes_page() -> str:
    """The docstrings of the methods' settings: the source, what is mended, what is ours."""
    parts = [
        NOTE,
        "# What differs from the released codes\n",
        "Per method: what its authors' code does, what is mended here, and what is ours. Where a method has "
        "`released_quirks`, `method.released_quirks=true` brings the mended mistakes back. The text is that of each "
        "method's `config.py`.\n",
        "## Methods that prune units\n",
    ]
    for kind, heading in (("units", ""), ("weights", "## Methods that prune single weights\n")):
        parts += [heading] if heading else []
        for config in sorted((ROOT / "src" / "spp" / "methods" / kind).glob("*/config.py")):
            docstring = ast.get_docstring(ast.parse(config.read_text())) or ""
            link = f"../{config.relative_to(ROOT).as_posix()}"
            parts.append(f"### {config.parent.name}{' (weights)' if kind == 'weights' else ''}\n")
            parts.append(f"[{config.relative_to(ROOT / 'src').as_posix()}]({link})\n")
            parts.append(f"{_as_markdown(docstring)}\n")
    return "\n".join(parts)


def _as_markdown(docstring: str) -> str:
    """A docstring with what Markdown would take for something else protected: formulas and underscores."""
    return "\n".join(line if line.startswith("    ") else _protected(line) for line in docstring.splitlines())


def _protected(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"(?<!^)([*_\[\]])", r"\\\1", text).replace("<", "&lt;")


PAGES = {"commands.md": commands_page, "python.md": python_page, "released_codes.md": released_codes_page}


def main() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page())


if __name__ == "__main__":
    main()
