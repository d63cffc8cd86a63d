"""Sets of GLUE, as the tsv of gluebenchmark.com and as the parquet of Hugging Face.

The labels of GLUE's test sets are not public: its development set is what is measured in the end, as in the literature,
and validation is held out from train.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.data.files import require_root
from spp.data.sentences.source import Place, Row, Sentences, checked
from spp.data.sentences.table import find_column, read_table


@dataclass(frozen=True)
class GlueSet:
    """One set of GLUE.

    Attributes:
        folder: what its folder is called, in capital letters or not, if its files do not lie in the root itself.
        text_columns: for each text what its column is called, in one form or the other.
        label_column: likewise.
        class_names: in the order of the labels of parquet; None where they are numbers on a scale.
        dev_parts: the development sets by their part: "" for a set that has one.
        tsv_header: columns of a tsv without a line of them.
    """

    folder: str
    text_columns: tuple[tuple[str, ...], ...]
    label_column: tuple[str, ...] = ("label",)
    class_names: tuple[str, ...] | None = None
    dev_parts: tuple[str, ...] = ("",)
    tsv_header: tuple[str, ...] | None = None


def opener(glue: GlueSet) -> Callable[[Place], Sentences]:
    """What opens such a set."""

    def open_set(place: Place) -> Sentences:
        """Read the files of the set.

        Raises:
            ValueError: one line, if a file or a column is missing, or a row cannot be used.
        """
        root = require_root(place.root, f"train and dev of {glue.folder} as tsv or parquet")
        folder = next((each for each in _folders(root, glue.folder) if _files(each, "train")), root)
        rows: dict[str, Iterator[Row]] = {
            "train": _rows(glue, _required(folder, ["train"])),
            "test": _rows_of_parts(glue, folder),
        }
        return checked(
            rows,
            on_error=place.options["on_error"],
            class_names=glue.class_names,
            are_numbers=glue.class_names is None,
            parts=glue.dev_parts,
        )

    return open_set


def _rows_of_parts(glue: GlueSet, folder: Path) -> Iterator[Row]:
    for number, part in enumerate(glue.dev_parts):
        end = f"_{part}" if part else ""
        yield from _rows(glue, _required(folder, [f"dev{end}", f"validation{end}"]), number)


def _folders(root: Path, name: str) -> Iterator[Path]:
    yield root
    for child in sorted(root.iterdir()):
        if child.is_dir() and child.name.lower() == name.lower():
            yield child


def _required(folder: Path, stems: Sequence[str]) -> list[Path]:
    for stem in stems:
        if found := _files(folder, stem):
            return found
    names = " or ".join(f"{stem}.tsv, {stem}-*.parquet" for stem in stems)
    raise ValueError(f"data.root: {str(folder)!r} has no {names}; allowed: a set of GLUE; add the file")


def _files(folder: Path, stem: str) -> list[Path]:
    tsv = folder / f"{stem}.tsv"
    if tsv.is_file():
        return [tsv]
    return sorted([*folder.glob(f"{stem}.parquet"), *folder.glob(f"{stem}-[0-9]*.parquet")])


def _rows(glue: GlueSet, files: Sequence[Path], part: int = 0) -> Iterator[Row]:
    for file in files:
        for place, row in read_table(file, glue.tsv_header if file.suffix == ".tsv" else None):
            columns = [find_column(row, names, place, "data.root") for names in glue.text_columns]
            label = row[find_column(row, glue.label_column, place, "data.root")]
            texts = tuple(str(row[column] or "") for column in columns)
            yield Row(texts, _target(glue, label, place), place, part)


def _target(glue: GlueSet, label: Any, place: str) -> str | float:
    names = glue.class_names
    if names is None:
        try:
            return float(label)
        except (TypeError, ValueError):
            raise _unknown(label, place, "a number") from None
    if label in names:
        return str(label)
    if str(label).isdigit() and int(label) < len(names):
        return names[int(label)]
    raise _unknown(label, place, f"{', '.join(names)}, or 0 to {len(names) - 1}")


def _unknown(label: Any, place: str, allowed: str) -> ValueError:
    return ValueError(f"data.root: {place}: label {label!r} is not known; allowed: {allowed}; correct the line")
