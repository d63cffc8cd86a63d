"""CIFAR-10 from parquet files (as on the Hugging Face hub) or from the original python batches.

`root` holds train*.parquet and test*.parquet with a column of encoded images (`image` or `img`, bytes or a
struct with `bytes`) and one of labels (`label` or `labels`), or the folder cifar-10-batches-py, or its files.
"""

import itertools
import pickle
from functools import cache as memoize
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct
from PIL import Image

from spp.data.files import Identity, hash_file, hash_lines, limit_train, remember, require_root, stamp_of
from spp.data.images.broken import decode
from spp.data.images.columns import ColumnsError, find_columns
from spp.data.images.source import Access, ArraySplit, Labels, Pixels, Source, Split, SplitName

NUM_CLASSES = 10
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = 32
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

CONTENTS = "train*.parquet and test*.parquet, or cifar-10-batches-py"
BATCHES_FOLDER = "cifar-10-batches-py"
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "test")


def fingerprint(access: Access) -> Identity:
    """See spp.data.registry.fingerprint; the manifest is every file's name, size and hash."""
    folder, files = _find(access)
    every = [file for name in SPLIT_NAMES for file in files[name]]

    def compute() -> Identity:
        lines = [f"{file.relative_to(folder).as_posix()} {file.stat().st_size} {hash_file(file)}" for file in every]
        counts = {name: sum(map(_count, files[name])) for name in SPLIT_NAMES}
        return {"splits": counts, "sha256": hash_lines(lines)}

    identity = remember(access.cache, folder, stamp_of(every, folder), compute)
    num_used = limit_train(identity["splits"]["train"], access.num_train)
    return {**identity, "splits": {**identity["splits"], "train": num_used}}


def open_source(access: Access) -> Source:
    """See spp.data.registry.open_source."""
    _, files = _find(access)

    @memoize
    def open_split(name: SplitName) -> Split:
        if name == "test":
            return _open_files(files[name], None)
        return _open_files(files[name], limit_train(sum(map(_count, files[name])), access.num_train))

    return Source(
        num_classes=NUM_CLASSES,
        in_chans=3,
        native_size=SIZE,
        mean=MEAN,
        std=STD,
        open_split=open_split,
        class_names=CLASS_NAMES,
    )


def _find(access: Access) -> tuple[Path, dict[SplitName, list[Path]]]:
    """The folder that holds the files, and the files of each split in their order."""
    if access.download and access.root is not None:
        _fetch(access.root)
    folder = require_root(access.root, f"CIFAR-10 as {CONTENTS}")
    parquet: dict[SplitName, list[Path]] = {name: sorted(folder.glob(f"{name}*.parquet")) for name in SPLIT_NAMES}
    if all(parquet.values()):
        return folder, parquet
    batches = folder / BATCHES_FOLDER if (folder / BATCHES_FOLDER).is_dir() else folder
    found: dict[SplitName, list[Path]] = {
        "train": sorted(batches.glob("data_batch_*")),
        "test": sorted(batches.glob("test_batch")),
    }
    if all(found.values()):
        return batches, found
    raise ValueError(
        f"data.root: {str(folder)!r} holds no CIFAR-10; allowed: a folder with {CONTENTS}; correct data.root "
        "or add data.download=true"
    )


def _fetch(root: Path) -> None:
    if (root / BATCHES_FOLDER).is_dir() or (root / "data_batch_1").is_file() or any(root.glob("train*.parquet")):
        return
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(CIFAR10.url, str(root), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"data.download: true did not succeed ({reason}); allowed: true where the archive is in "
            f"reach; copy CIFAR-10 into {root} and set data.download=false"
        ) from None


def _count(file: Path) -> int:
    if file.suffix != ".parquet":
        return len(_read_batch(file)[1])
    return int(_open_parquet(file).metadata.num_rows)


def _open_files(files: list[Path], count: int | None) -> Split:
    """The first `count` images (all where None) of the files in their order."""
    is_parquet = files[0].suffix == ".parquet"
    parts: list[tuple[Any, Labels]] = []
    left = count
    for file in files:
        images, labels = _read_parquet(file) if is_parquet else _read_batch(file)
        if not np.isin(labels, np.arange(NUM_CLASSES)).all():
            raise _wrong(file, f"labels {int(labels.min())} to {int(labels.max())}")
        parts.append((images[:left], labels[:left]))
        if left is not None:
            left = max(0, left - len(labels))
    every_image, every_label = zip(*parts, strict=True)
    labels = np.concatenate(every_label)
    if is_parquet:
        return EncodedSplit(files[0].parent, list(itertools.chain(*every_image)), labels)
    return ArraySplit(np.concatenate(every_image), labels)


class EncodedSplit:
    """Encoded images, each decoded when first asked for and then kept; labels have shape (N,)."""

    def __init__(self, folder: Path, encoded: list[bytes | None], labels: Labels) -> None:
        self.folder, self.encoded, self.labels = folder, encoded, labels
        self._pixels = np.empty((len(labels), SIZE, SIZE, 3), dtype=np.uint8)
        self._is_decoded = np.zeros(len(labels), dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not self._is_decoded[index]:
            self._pixels[index] = self._decode(index)
            self._is_decoded[index] = True
        return Image.fromarray(self._pixels[index]), int(self.labels[index])

    def _decode(self, index: int) -> Pixels:
        image = decode(self.encoded[index] or b"", f"{self.folder}, image {index} of a split")
        if image.size != (SIZE, SIZE):
            raise _wrong(self.folder, f"an image of {image.width}x{image.height} pixels, number {index} of a split")
        return np.asarray(image)


def _open_parquet(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid:
        raise _wrong(file, "something that is no parquet") from None


def _read_parquet(file: Path) -> tuple[list[bytes | None], Labels]:
    """The encoded images and the labels."""
    parquet = _open_parquet(file)
    try:
        columns = find_columns(parquet.schema_arrow)
    except ColumnsError:
        raise _wrong(file, f"the columns {', '.join(parquet.schema_arrow.names)}") from None
    table = parquet.read(columns=list(columns))
    cells = table[columns.image].to_pylist()
    encoded = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
    return encoded, table[columns.label].to_numpy().astype(np.int64)


class _BatchUnpickler(pickle.Unpickler):
    """Builds numpy arrays and builtin containers and nothing else, so that a file cannot run code."""

    ALLOWED = frozenset({("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")})

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a pickled array of bytes needs."""
        if (name, module.rpartition(".")[2]) in self.ALLOWED and module.partition(".")[0] == "numpy":
            # The module that the original files name, numpy.core, has moved.
            return _reconstruct if name == "_reconstruct" else getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return str.encode
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


def _read_batch(file: Path) -> tuple[Pixels, Labels]:
    """The pixels (N, 32, 32, 3) and the labels."""
    with file.open("rb") as stream:
        try:
            batch = _BatchUnpickler(stream, encoding="latin1").load()
            data, labels = np.asarray(batch["data"]), np.asarray(batch["labels"], dtype=np.int64)
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise _wrong(file, f"no batch of CIFAR-10 ({error})") from None
    if data.dtype != np.uint8 or data.shape != (len(labels), 3 * SIZE * SIZE):
        raise _wrong(file, f"pixels of type {data.dtype} and shape {data.shape}")
    pixels = data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels


def _wrong(file: Path, found: str) -> ValueError:
    return ValueError(
        f"data.root: {str(file)!r} holds {found}; allowed: CIFAR-10 as {CONTENTS}, images of {SIZE}x{SIZE} "
        f"pixels, labels 0 to {NUM_CLASSES - 1}; fetch the file again"
    )
