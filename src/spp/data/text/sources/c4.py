"""C4: the first shard of train to calibrate with, and the first of validation, as json lines, gzipped or not.

Windows are drawn from one long document each and never across documents; the perplexity text is the first 1,100
documents of validation, as in SparseGPT's code.
"""

import gzip
import json
from functools import cache
from pathlib import Path

from spp.data.files import require_root
from spp.data.text.source import SplitName, Text

TRAIN, VALIDATION = "c4-train.00000-of-01024.json", "c4-validation.00000-of-00008.json"
NUM_VALIDATION_DOCUMENTS = 1100


def open_text(root: str | None) -> Text:
    """The documents of the shards in `root` or in its folder en.

    Raises:
        ValueError: one line, if the shard of train is missing or is no json.
    """
    folder = require_root(root, f"{TRAIN}.gz")
    train, validation = _find(folder, TRAIN), _find(folder, VALIDATION)
    if train is None:
        raise ValueError(
            f"calibration.root: {str(folder)!r} has no {TRAIN}.gz; allowed: a folder with the first shard of C4; "
            "download it, or calibrate with another text"
        )

    def pieces(split: SplitName) -> list[str]:
        if split == "train":
            return list(_documents(train))
        documents = () if validation is None else _documents(validation)[:NUM_VALIDATION_DOCUMENTS]
        return list(documents) if split == "validation" else []

    return Text(pieces, rule="documents", test_joint=" ")


def _find(folder: Path, name: str) -> Path | None:
    candidates = [place / f"{name}{end}" for place in (folder, folder / "en") for end in (".gz", "")]
    return next((file for file in candidates if file.is_file()), None)


@cache
def _documents(file: Path) -> tuple[str, ...]:
    is_packed = file.suffix == ".gz"
    try:
        with gzip.open(file, "rt", encoding="utf-8") if is_packed else file.open(encoding="utf-8") as lines:
            return tuple(json.loads(line)["text"] for line in lines)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"calibration.root: {str(file)!r} cannot be read ({error}); allowed: json lines with a text; download"
            " it again"
        ) from None
