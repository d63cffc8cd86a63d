"""A folder of train.txt, valid.txt and test.txt, read line by line as data sets of language models are.

Where train.txt is missing, the first half of the lines of valid.txt stands in for it, and the second half is the
validation split: calibration and validation then share no line.
"""

from functools import cache
from pathlib import Path

from spp.data.files import require_root
from spp.data.text.source import SplitName, Text

FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def open_lines(root: str | None) -> Text:
    """The lines of a folder; blank ones count as empty pieces.

    Raises:
        ValueError: one line, if a file is missing, or is not UTF-8.
    """
    folder = require_root(root, "valid.txt and test.txt, and perhaps train.txt")
    for name in ("validation", "test"):
        if not (folder / FILES[name]).is_file():
            raise ValueError(
                f"data.root: {str(folder)!r} has no {FILES[name]}; allowed: a folder with valid.txt and test.txt, and "
                "perhaps train.txt; add the file"
            )
    has_train = (folder / FILES["train"]).is_file()
    facts = {} if has_train else {"train": "first half of valid.txt"}

    def pieces(split: SplitName) -> list[str]:
        if has_train or split == "test":
            return list(_lines(folder / FILES[split]))
        lines = _lines(folder / FILES["validation"])
        half = len(lines) // 2
        return list(lines[:half] if split == "train" else lines[half:])

    return Text(pieces, facts=facts)


@cache
def _lines(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"data.root: {str(file)!r} is not UTF-8 ({error.reason} at byte {error.start}); allowed: text in UTF-8; "
            "convert it"
        ) from None
    return tuple(line if line.strip() else "" for line in text.splitlines(keepends=True))
