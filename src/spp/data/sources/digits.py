"""UCI handwritten digits: 1,797 grey images of 8x8 pixels, which scikit-learn carries along.

The file is read directly, because importing scikit-learn takes seconds. 297 images, drawn once and for all,
are the test set; the other 1,500 are for training.
"""

import gzip
import hashlib
import importlib.util
from functools import cache as memoize
from pathlib import Path

import numpy as np

from spp.data.files import Identity, hash_lines, limit_train
from spp.data.images.source import Access, ArraySplit, Source, SplitName
from spp.data.split import stratified_split

NUM_IMAGES = 1797
NUM_TEST = 297
TEST_SEED = 0
SIZE = 8
DARKEST = 16
"""Largest grey value in the file."""

CLASS_NAMES = tuple(map(str, range(10)))
MEAN = (0.3058,)
STD = (0.3760,)


def fingerprint(access: Access) -> Identity:
    """See spp.data.registry.fingerprint; the images come with scikit-learn, wherever the root points."""
    num_used = limit_train(NUM_IMAGES - NUM_TEST, access.num_train)
    content = hashlib.sha256(_read()).hexdigest()
    return {
        "splits": {"train": num_used, "test": NUM_TEST},
        "sha256": hash_lines([f"digits.csv {content}", f"test {NUM_TEST} seed {TEST_SEED}"]),
    }


def open_source(access: Access) -> Source:
    """See spp.data.registry.open_source."""
    num_used = limit_train(NUM_IMAGES - NUM_TEST, access.num_train)

    def open_split(name: SplitName) -> ArraySplit:
        train, test = _splits()
        return test if name == "test" else ArraySplit(train.pixels[:num_used], train.labels[:num_used])

    return Source(
        num_classes=len(CLASS_NAMES),
        in_chans=1,
        native_size=SIZE,
        mean=MEAN,
        std=STD,
        open_split=open_split,
        class_names=CLASS_NAMES,
    )


def _read() -> bytes:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "data.name: 'digits' needs scikit-learn, which carries its file; allowed: data sets whose files "
            "are here; pip install scikit-learn"
        )
    file = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    return gzip.decompress(file.read_bytes())


@memoize
def _splits() -> tuple[ArraySplit, ArraySplit]:
    table = np.loadtxt(_read().decode("ascii").splitlines(), delimiter=",", dtype=np.int64)
    grey, labels = table[:, :-1].reshape(-1, SIZE, SIZE), table[:, -1]
    pixels = np.rint(grey * (255 / DARKEST)).astype(np.uint8)
    train, test = stratified_split(labels, NUM_TEST / NUM_IMAGES, TEST_SEED)
    return ArraySplit(pixels[train], labels[train]), ArraySplit(pixels[test], labels[test])
