"""Tables of texts: csv with quotes, tsv without (as GLUE's are), parquet."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ENDINGS = (".parquet", ".tsv", ".csv")
MAX_FIELD = 10_000_000
"""Letters of a field of csv: more would be an unclosed quote that swallows the file."""


def read_table(file: Path, header: Sequence[str] | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table by their columns, each with the place that a message names.

    Args:
        file: ending in one of ENDINGS.
        header: names of the columns of a table without a line of them.

    Raises:
        ValueError: one line, if the file cannot be read, or a line has fewer columns than the first.
    """
    try:
        yield from _read_parquet(file) if file.suffix == ".parquet" else _read_lines(file, header)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"data.root: {str(file)!r} cannot be read ({error}); allowed: a table in UTF-8; save it again"
        ) from None


def _read_lines(file: Path, header: Sequence[str] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(MAX_FIELD)
    quoting: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {"strict": True}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, **quoting)
        names = list(header) if header is not None else next(reader, [])
        for values in reader:
            if not values:
                continue
            place = f"{file} line {reader.line_num}"
            if len(values) < len(names):
                raise ValueError(
                    f"data.root: {place}: {len(values)} columns instead of {len(names)}; allowed: a value for each of "
                    f"{', '.join(names)}; correct the line"
                )
            yield place, dict(zip(names, values, strict=False))


def _read_parquet(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowException as error:
        raise OSError(str(error).splitlines()[0]) from None
    for number, row in enumerate(rows, start=1):
        yield f"{file} row {number}", row


def find_column(row: Mapping[str, Any], candidates: Sequence[str], place: str, field: str) -> str:
    """The first of `candidates` that a row has.

    Raises:
        ValueError: one line, if it has none of them.
    """
    for name in candidates:
        if name in row:
            return name
    raise ValueError(
        f"{field}: {place} has no column {' or '.join(map(repr, candidates))}; allowed: {', '.join(map(str, row))}; "
        "name one of them"
    )
