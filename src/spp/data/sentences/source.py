"""What every set of sentences looks like, and what is refused in one."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

ON_ERROR = ("fail", "skip")
SPLITS = ("train", "validation", "test")

_log = logging.getLogger(__name__)


class Options(TypedDict):
    """How a set is to be read.

    Attributes:
        on_error: fail, or skip what cannot be used and count it.
        text_columns: of one's own table, the columns of the text or of both texts; None: found out by their names.
        label_column: the column of the class, likewise.
    """

    on_error: str
    text_columns: list[str] | None
    label_column: str | None


@dataclass(frozen=True)
class Row:
    """One sample.

    Attributes:
        texts: one text, or two.
        target: the name of its class, or a number.
        place: file and line that messages name.
        part: of test, which of its parts the sample belongs to, from 0.
    """

    texts: tuple[str, ...]
    target: str | float
    place: str
    part: int = 0


@dataclass(frozen=True)
class Sentences:
    """A set that has been read and checked.

    Attributes:
        rows: by split; validation is there only where the set has one of its own.
        class_names: in the order of their numbers; None where targets are numbers.
        parts: names of the parts of test; the first is what the headline is measured on.
        num_left_out: rows by reason that on_error=skip has left out.
    """

    rows: Mapping[str, Sequence[Row]]
    class_names: tuple[str, ...] | None
    parts: tuple[str, ...] = ("",)
    num_left_out: Mapping[str, int] = field(default_factory=dict)

    def targets(self, split: str) -> list[float] | list[int]:
        """Numbers of the classes, or the numbers themselves."""
        if self.class_names is None:
            return [float(row.target) for row in self.rows[split]]
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return [numbers[str(row.target)] for row in self.rows[split]]

    def fingerprint(self) -> dict[str, Any]:
        """Counts by split, classes, and a hash of all texts and targets."""
        digest = hashlib.sha256()
        for split, rows in sorted(self.rows.items()):
            for row in rows:
                digest.update(repr((split, row.texts, row.target, row.part)).encode())
        left_out = {"left_out": dict(self.num_left_out)} if any(self.num_left_out.values()) else {}
        classes = {} if self.class_names is None else {"classes": list(self.class_names)}
        splits = {"val" if split == "validation" else split: len(rows) for split, rows in self.rows.items()}
        return {"splits": splits, **classes, **left_out, "sha256": digest.hexdigest()}


def checked(
    rows: Mapping[str, Iterable[Row]],
    *,
    on_error: str,
    class_names: Sequence[str] | None = None,
    are_numbers: bool = False,
    parts: tuple[str, ...] = ("",),
) -> Sentences:
    """A set of these rows: texts that are not empty, classes that train and test both have.

    Args:
        rows: by split.
        on_error: fail; or skip: rows that cannot be used are left out and counted.
        class_names: all classes in their order; None: those of train in alphabetical order.
        are_numbers: targets are numbers.
        parts: see Sentences.

    Raises:
        ValueError: one line with the place, of the first row that cannot be used, or if none is left.
    """
    left_out = {"empty texts": 0, "classes of one split alone": 0}
    kept: dict[str, list[Row]] = {}
    for split, all_rows in rows.items():
        kept[split] = []
        for row in all_rows:
            if all(text.strip() for text in row.texts):
                kept[split].append(row)
            elif on_error == "skip":
                left_out["empty texts"] += 1
            else:
                raise ValueError(
                    f"data.root: {row.place}: the text is empty; allowed: texts; write one, or leave such rows out by "
                    "data.on_error=skip"
                )
    if not are_numbers:
        left_out["classes of one split alone"] = _keep_common_classes(kept, on_error)
        found = {str(row.target) for row in kept["train"]}
        class_names = sorted(found) if class_names is None else [name for name in class_names if name in found]
    for split in ("train", "test"):
        if not kept[split]:
            raise ValueError(
                f"data.root: no row of {split} can be used; allowed: one or more; look at the columns of text and label"
            )
    for reason, count in left_out.items():
        if count:
            _log.warning("data: %d rows are left out (%s)", count, reason)
    return Sentences(kept, None if are_numbers else tuple(class_names or ()), parts, left_out)


def _keep_common_classes(rows: dict[str, list[Row]], on_error: str) -> int:
    """Refuse, or take out, classes that train has and test has not, or the other way; returns how many rows went."""
    first = {split: _first_of_classes(of_split) for split, of_split in rows.items()}
    num_left_out = 0
    common = set(first["train"]) & set(first["test"])
    for split, of_split in first.items():
        other = "test" if split == "train" else "train"
        for name in sorted(set(of_split) - common):
            if on_error == "skip":
                continue
            if name not in first[other]:
                raise ValueError(
                    f"data.root: {of_split[name].place}: class {name!r} is in {split} and not in {other}; allowed: "
                    "classes that both have; correct the label, or leave such rows out by data.on_error=skip"
                )
    for split in rows:
        num_before = len(rows[split])
        rows[split] = [row for row in rows[split] if str(row.target) in common]
        num_left_out += num_before - len(rows[split])
    return num_left_out


def _first_of_classes(rows: Iterable[Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(str(row.target), row)
    return found


@dataclass(frozen=True)
class Place:
    """Where a set lies, and how it is to be read."""

    root: Path | None
    options: Options
