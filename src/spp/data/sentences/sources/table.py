"""One's own table: train, test and perhaps validation as csv, tsv or parquet in one folder, with text and class."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spp.data.files import require_root
from spp.data.sentences.source import SPLITS, Options, Place, Row, Sentences, checked
from spp.data.sentences.table import ENDINGS, find_column, read_table

TEXT_COLUMNS = (("text", "sentence", "sentence1"), ("sentence2", "text2"))
LABEL_COLUMNS = ("label", "class", "target")


def open_sentences(place: Place) -> Sentences:
    """Read the tables.

    Raises:
        ValueError: one line, if a file or a column is missing, or a row cannot be used.
    """
    root = require_root(place.root, "train.csv and test.csv (or .tsv, .parquet), and perhaps validation.csv")
    rows = {}
    for split in SPLITS:
        file = next((found for end in ENDINGS if (found := root / f"{split}{end}").is_file()), None)
        if file is not None:
            rows[split] = _rows(file, place.options)
        elif split != "validation":
            raise ValueError(
                f"data.root: {str(root)!r} has no {split}.csv, {split}.tsv or {split}.parquet; allowed: a folder with "
                "train and test; add the file"
            )
    return checked(rows, on_error=place.options["on_error"])


def _rows(file: Path, options: Options) -> Iterator[Row]:
    for place, row in read_table(file):
        label = options["label_column"]
        label = find_column(row, LABEL_COLUMNS if label is None else (label,), place, "data.label_column")
        columns = _text_columns(row, options["text_columns"], place)
        target = "" if row[label] is None else str(row[label]).strip()
        if not target:
            raise ValueError(f"data.root: {place}: the class is empty; allowed: a class for each text; write one")
        yield Row(tuple("" if row[name] is None else str(row[name]) for name in columns), target, place)


def _text_columns(row: Mapping[str, Any], asked: list[str] | None, place: str) -> list[str]:
    if asked is not None:
        return [find_column(row, (name,), place, "data.text_columns") for name in asked]
    first = find_column(row, TEXT_COLUMNS[0], place, "data.text_columns")
    return [first, *(name for name in TEXT_COLUMNS[1] if name in row)]
