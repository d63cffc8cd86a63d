"""One's own images and captions: a CSV, TSV or JSONL with the columns image, caption and perhaps split.

Lines with the same image are captions of one image. Without a column of splits, val_fraction of the images are held out
for validation, and as many for the test.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from spp.data.captions.source import SPLITS, Access, Captions, RawEntry, open_entries
from spp.data.split import stratified_split

_ALLOWED = "a .csv, .tsv or .jsonl with the columns image, caption and perhaps split (train, val, test)"


def open_captions(access: Access) -> Captions:
    """All images of the file.

    Raises:
        ValueError: one line, if it is no such file, or an entry cannot be used.
    """
    assert access.file is not None
    lines = list(_lines(access.file))
    by_image: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for number, line in lines:
        by_image.setdefault(line["image"], []).append((number, line))
    splits = _splits(by_image, access)
    raw = [
        RawEntry(
            splits[image],
            image,
            tuple(line["caption"] for _, line in found),
            f"line {found[0][0]} of {access.file.name}",
        )
        for image, found in by_image.items()
    ]
    return open_entries(raw, access, mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD, facts={})


def _lines(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and fields of every line."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            if file.suffix == ".jsonl":
                rows = [(number, json.loads(line)) for number, line in enumerate(stream, 1) if line.strip()]
            elif file.suffix in (".csv", ".tsv"):
                reader = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
                rows = [(reader.line_num, row) for row in reader]
            else:
                raise ValueError(f"it ends in {file.suffix!r}")
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ValueError(
            f"data.captions: {str(file)!r} cannot be read ({reason}); allowed: {_ALLOWED}; correct it"
        ) from None
    for number, row in rows:
        problem = "" if isinstance(row, dict) else "is no object"
        missing = [] if problem else [name for name in ("image", "caption") if not isinstance(row.get(name), str)]
        if missing or problem:
            raise ValueError(
                f"data.captions: line {number} of {str(file)!r} {problem or 'has no text as ' + missing[0]}; allowed: "
                f"{_ALLOWED}; correct it"
            )
        yield number, row


def _splits(by_image: Mapping[str, list[tuple[int, Mapping[str, str]]]], access: Access) -> dict[str, str]:
    """The split of every image."""
    named = {image: found[0][1].get("split") for image, found in by_image.items()}
    if any(named.values()):
        for image, found in by_image.items():
            for number, line in found:
                if line.get("split") not in SPLITS or line["split"] != named[image]:
                    raise ValueError(
                        f"data.captions: line {number} has the split {line.get('split')!r}; allowed: train, val or "
                        "test, the same for all captions of an image; correct it"
                    )
        return {image: str(split) for image, split in named.items()}
    images = sorted(by_image)
    rest, test = stratified_split(np.zeros(len(images)), access.val_fraction, access.split_seed)
    _, val = stratified_split(np.zeros(len(rest)), access.val_fraction, access.split_seed)
    found_splits = dict.fromkeys(images, "train")
    found_splits.update({images[place]: "test" for place in test})
    found_splits.update({images[rest[place]]: "val" for place in val})
    return found_splits
