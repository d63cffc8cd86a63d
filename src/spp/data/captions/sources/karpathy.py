"""COCO and Flickr30k with Karpathy's split: dataset_coco.json or dataset_flickr30k.json, and the folders of images.

The file lists {"filepath": "val2014", "filename": "....jpg", "split": "train", "sentences": [{"raw": "..."}]};
restval belongs to train, as everywhere.
"""

import json
from collections.abc import Iterator
from typing import Any

from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from spp.data.captions.source import Access, Captions, RawEntry, open_entries

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def open_captions(access: Access) -> Captions:
    """All images of the file.

    Raises:
        ValueError: one line, if it is no such file, or an entry cannot be used.
    """
    assert access.file is not None
    try:
        content = json.loads(access.file.read_text(encoding="utf-8"))
        images = content["images"]
        raw = list(_entries(images, access.file.name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(
            f"data.captions: {str(access.file)!r} cannot be read ({reason}); allowed: Karpathy's dataset_coco.json or "
            "dataset_flickr30k.json; download it again"
        ) from None
    facts = {"dataset": str(content.get("dataset", access.file.stem))}
    return open_entries(raw, access, mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD, facts=facts)


def _entries(images: list[dict[str, Any]], file: str) -> Iterator[RawEntry]:
    for number, image in enumerate(images):
        name = "/".join(filter(None, (image.get("filepath", ""), image["filename"])))
        captions = tuple(sentence["raw"] for sentence in image["sentences"])
        yield RawEntry(_SPLITS[image["split"]], name, captions, f"image {number} of {file}")
