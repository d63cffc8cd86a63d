"""Any data set of photographs with a train and a val (or test) part, such as ImageNet, in one of three forms.

    folder   root/train/<class>/* and root/val/<class>/*
    shards   root/train-*.tar (or root/train/*.tar) with <key>.jpg and <key>.cls: WebDataset
    parquet  root/data/train-*.parquet (or root/train-*.parquet): Hugging Face

The second part is the test set; a validation split is taken from train. The order of the manifest is that of the
positions, so the same images under an equally ordered manifest make the same split and the same batches in every
form. The manifest itself, and so the identity, differs: names and sizes of files are what can be known quickly.
"""

from functools import cache as memoize
from pathlib import Path
from typing import Any

import numpy as np

from spp.data.files import Identity, hash_lines, limit_train, remember, require_root
from spp.data.images.folder import FolderImages
from spp.data.images.form import ImageSet
from spp.data.images.index import IndexedImages
from spp.data.images.parquet import ParquetImages
from spp.data.images.selection import Selection
from spp.data.images.shards import ShardImages
from spp.data.images.source import Access, Labels, Source, Split, SplitName

_FORMS: dict[str, type[FolderImages] | type[IndexedImages]] = {
    "folder": FolderImages,
    "shards": ShardImages,
    "parquet": ParquetImages,
}
FORMATS = tuple(_FORMS)
CONTENTS = f"{FolderImages.contents}; {ShardImages.contents}; or {ParquetImages.contents}"
_PLACES = ("", "data/", "train/")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_NESTED_TABLES = tuple(
    f"{'*/' * depth}{name}" for depth in (1, 2, 3) for name in ("train*.parquet", "*-train*.parquet", "train/*.parquet")
)
DECODING = 2
"""How files become pixels; raised when the same file gives other ones. Since 2 images are turned upright as their EXIF
orientation says, and the scale of their numbers follows from their mode (16 bits, floats)."""
# ImageNet's; other photographs differ little, and networks trained on ImageNet expect these.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def fingerprint(access: Access) -> Identity:
    """See spp.data.registry.fingerprint; the manifest has a line for every image, see the forms.

    It is remembered in the cache until a class folder's time of modification changes, that is until a file is
    added, removed or renamed, or in the other forms until a file of images changes.
    """
    root, images = _open(access)

    def compute() -> Identity:
        manifests = {name: images.manifest(name) for name in ("train", "test")}
        counts = {name: len(lines) for name, lines in manifests.items()}
        return {"splits": counts, "sha256": hash_lines([*manifests["train"], *manifests["test"]])}

    identity = remember(access.cache, root, images.stamp(), compute)
    num_used = limit_train(identity["splits"]["train"], access.num_train)
    return {**identity, "splits": {**identity["splits"], "train": num_used}, "decoding": DECODING}


def open_source(access: Access) -> Source:
    """See spp.data.registry.open_source; `num_train` takes images from all classes in turn."""
    _, images = _open(access)

    @memoize
    def open_split(name: SplitName) -> Split:
        split = images.open_split(name)
        if name == "test" or access.num_train is None:
            return split
        count = limit_train(len(split), access.num_train)
        return Selection(split, _first_of_every_class(split.labels, count))

    return Source(
        num_classes=images.num_classes,
        in_chans=3,
        native_size=None,
        mean=MEAN,
        std=STD,
        open_split=open_split,
        class_names=images.class_names,
    )


def _open(access: Access) -> tuple[Path, ImageSet]:
    root = require_root(access.root, CONTENTS)
    form = access.format or _find_form(root)
    if not _FORMS[form].is_in(root):
        _refuse_what_is_close(root)
    return root, _FORMS[form](access)


def _refuse_what_is_close(root: Path) -> None:
    """Name what a user may have taken for one of the forms."""
    for pattern in (*(f"{place}*{suffix}" for place in _PLACES for suffix in _COMPRESSED), *_NESTED_TABLES):
        file = next(iter(sorted(root.glob(pattern))), None)
        if file is not None:
            is_table = file.suffix == ".parquet"
            what = "a table in a folder that is not looked into" if is_table else "compressed shards, not read in place"
            remedy = f"say data.root={_root_of(file)}" if is_table else f"unpack it: gunzip {file}"
            raise ValueError(f"data.root: {str(file)!r} is {what}; allowed: {CONTENTS}; {remedy}")


def _root_of(file: Path) -> Path:
    """The folder of which a table of train is in."""
    return file.parent.parent if file.parent.name in ("train", "data") else file.parent


def _find_form(root: Path) -> str:
    found = [name for name, form in _FORMS.items() if form.is_in(root)]
    if len(found) > 1:
        raise ValueError(
            f"data.format: null leaves open which of {' and '.join(found)} in {str(root)!r} is meant; allowed: "
            f"{', '.join(FORMATS)}; use data.format={found[0]}"
        )
    # Without any, the errors are those of the plain form.
    return found[0] if found else "folder"


def _first_of_every_class(labels: Labels, count: int) -> Any:
    """Positions of `count` images, sorted: the first of every class, then the second ones, and so on."""
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], np.arange(labels.max() + 1))
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return np.sort(np.lexsort((labels, turn))[:count])
