"""Small data sets in the layouts that users have."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

NUM_TRAIN, NUM_TEST = 100, 20


def encode(pixels, suffix="png"):
    """The bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=suffix)
    return stream.getvalue()


def write_parquet(file, pixels, labels, *, image="image", label="label", struct=True):
    """A parquet file as the Hugging Face hub has them (`struct`), or with plain bytes."""
    encoded = [encode(one) for one in pixels]
    cells = [{"bytes": one, "path": None} for one in encoded] if struct else encoded
    pq.write_table(pa.table({image: cells, label: pa.array(labels, pa.int64())}), file)


def write_batch(file, pixels, labels):
    """A file as the original ones: written by protocol 2, channels before rows."""
    data = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    file.write_bytes(pickle.dumps({"data": data, "labels": list(map(int, labels))}, protocol=2))


@pytest.fixture(scope="session")
def cifar_arrays():
    """Pixels and labels of a train and a test split; every class equally often."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10)
        for name, count in (("train", NUM_TRAIN), ("test", NUM_TEST))
    }


@pytest.fixture
def parquet_root(tmp_path, cifar_arrays):
    """CIFAR-10 in parquet, train in two files."""
    root = tmp_path / "parquet"
    root.mkdir()
    pixels, labels = cifar_arrays["train"]
    write_parquet(root / "train-00000-of-00002.parquet", pixels[:60], labels[:60])
    write_parquet(root / "train-00001-of-00002.parquet", pixels[60:], labels[60:])
    write_parquet(root / "test-00000-of-00001.parquet", *cifar_arrays["test"])
    return root


@pytest.fixture
def batches_root(tmp_path, cifar_arrays):
    """CIFAR-10 as the original python batches."""
    folder = tmp_path / "batches" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels, labels = cifar_arrays["train"]
    for number in range(5):
        part = slice(20 * number, 20 * number + 20)
        write_batch(folder / f"data_batch_{number + 1}", pixels[part], labels[part])
    write_batch(folder / "test_batch", *cifar_arrays["test"])
    return folder.parent


@pytest.fixture
def image_root(tmp_path):
    """Folders as ImageNet has them: classes ant, bee, cow with 6 images each, of several sizes and modes."""
    root = tmp_path / "folders"
    rng = np.random.default_rng(1)
    for part, count in (("train", 6), ("val", 2)):
        for class_name in ("bee", "ant", "cow"):
            folder = root / part / class_name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (40 + number, 50) if class_name == "cow" else (40, 50 + number, 3)
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def real_cifar_root():
    """The real CIFAR-10, which the repository does not carry."""
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"
    if not root.is_dir():
        pytest.skip("CIFAR-10 is not in ../shared/data/cifar10")
    return root


class Photographs:
    """JPEG files of three classes under one order, and the same set in each form.

    Attributes:
        samples: by split: name, encoded image and label, in the order of the manifest.
    """

    NAMES = ("ant", "bee", "cow")

    def __init__(self, folder):
        self.folder = folder
        rng = np.random.default_rng(2)
        self.samples = {
            part: [
                (f"{name}/{number:02d}", self.jpeg(rng, number), label)
                for label, name in enumerate(self.NAMES)
                for number in range(count)
            ]
            for part, count in (("train", 8), ("val", 3))
        }

    @staticmethod
    def jpeg(rng, number):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6 + number % 3, 3), dtype=np.uint8))
        return encode(np.asarray(coarse.resize((60, 45 + number))), "jpeg")

    def make(self, form, name="set"):
        """The root of the set in a form."""
        root = self.folder / f"{name}-{form}"
        root.mkdir()
        for part, samples in self.samples.items():
            getattr(self, f"_make_{form}")(root, part, samples)
        return root

    def _make_folder(self, root, part, samples):
        for name, content, _ in samples:
            file = root / part / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def _make_shards(self, root, part, samples, per_shard=5):
        for number, start in enumerate(range(0, len(samples), per_shard)):
            members = {}
            for name, content, label in samples[start : start + per_shard]:
                members |= {f"{name}.jpg": content, f"{name}.cls": b"%d" % label, f"{name}.json": b"{}"}
            write_tar(root / f"{part}-{number:04d}.tar", members)

    def _make_parquet(self, root, part, samples, per_file=9):
        (root / "data").mkdir(exist_ok=True)
        part, starts = {"val": "validation"}.get(part, part), range(0, len(samples), per_file)
        for number, start in enumerate(starts):
            chosen = samples[start : start + per_file]
            cells = [{"bytes": content, "path": f"{name}.jpg"} for name, content, _ in chosen]
            table = pa.table({"image": cells, "label": pa.array([label for *_, label in chosen], pa.int64())})
            name = f"{part}-{number:05d}-of-{len(starts):05d}.parquet"
            pq.write_table(table, root / "data" / name, row_group_size=4)


def write_tar(file, members, **options):
    """A tar archive of the given names and contents."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def photographs(tmp_path):
    """The same photographs in every form of `imagefolder`."""
    return Photographs(tmp_path)


@pytest.fixture
def tar_writer():
    """Writes a tar archive: file, {name: content}."""
    return write_tar
