import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spp.data.images.broken import BrokenImageError
from spp.data.registry import identify, open_source


def arrays(split):
    """All pixels and labels of a split."""
    items = [split[index] for index in range(len(split))]
    return np.stack([np.asarray(image) for image, _ in items]), np.array([label for _, label in items])


@pytest.mark.parametrize("layout", ["parquet_root", "batches_root"])
@pytest.mark.parametrize("name", ["train", "test"])
def test_every_layout_gives_the_images_that_were_written(layout, name, request, cifar_arrays):
    root = request.getfixturevalue(layout)
    pixels, labels = arrays(open_source("cifar10", root).split(name))
    assert np.array_equal(pixels, cifar_arrays[name][0])
    assert np.array_equal(labels, cifar_arrays[name][1])
    assert identify("cifar10", root)["splits"] == {"train": 100, "test": 20}


def rewrite(root, change):
    """Write the test split anew, its table changed."""
    file = next(root.glob("test*.parquet"))
    table = pq.read_table(file).to_pydict()
    pq.write_table(pa.table(change(table)), file)


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "labels"])
def test_plain_bytes_and_other_column_names(parquet_root, cifar_arrays, image, label):
    rewrite(parquet_root, lambda t: {image: [cell["bytes"] for cell in t["image"]], label: t["label"]})
    pixels, labels = arrays(open_source("cifar10", parquet_root).split("test"))
    assert np.array_equal(pixels, cifar_arrays["test"][0])
    assert np.array_equal(labels, cifar_arrays["test"][1])


def test_the_folder_of_batches_itself_is_fine(batches_root):
    inner = batches_root / "cifar-10-batches-py"
    assert identify("cifar10", inner) == identify("cifar10", batches_root)


@pytest.mark.parametrize("layout", ["parquet_root", "batches_root"])
def test_first_images_only(layout, request, cifar_arrays):
    root = request.getfixturevalue(layout)
    split = open_source("cifar10", root, num_train=70).split("train")
    pixels, labels = arrays(split)
    assert np.array_equal(pixels, cifar_arrays["train"][0][:70])
    assert np.array_equal(labels, split.labels)
    assert identify("cifar10", root, num_train=70)["splits"] == {"train": 70, "test": 20}
    with pytest.raises(ValueError, match=r"^data\.num_train: 101 is not allowed; allowed: 1 to 100"):
        identify("cifar10", root, num_train=101)


@pytest.mark.parametrize("layout", ["parquet_root", "batches_root"])
def test_identity_does_not_depend_on_the_folder(layout, request, tmp_path):
    root = request.getfixturevalue(layout)
    before = identify("cifar10", root)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copy)
    assert identify("cifar10", copy) == before


def test_one_changed_byte_changes_the_identity(batches_root):
    before = identify("cifar10", batches_root)
    file = batches_root / "cifar-10-batches-py" / "test_batch"
    batch = pickle.loads(file.read_bytes())
    batch["data"][0, 0] ^= 1
    content = pickle.dumps(batch, protocol=2)
    assert len(content) == file.stat().st_size
    file.write_bytes(content)
    assert identify("cifar10", batches_root)["sha256"] != before["sha256"]


def test_a_torn_parquet_is_named(parquet_root):
    file = next(parquet_root.glob("test*.parquet"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="holds something that is no parquet"):
        identify("cifar10", parquet_root)


def test_a_remembered_identity_follows_the_files(parquet_root, tmp_path):
    before = identify("cifar10", parquet_root, cache=tmp_path / "cache")
    assert identify("cifar10", parquet_root, cache=tmp_path / "cache") == before
    rewrite(parquet_root, lambda t: {**t, "image": [t["image"][1], *t["image"][1:]]})
    assert identify("cifar10", parquet_root, cache=tmp_path / "cache")["sha256"] != before["sha256"]


def bad_columns(table):
    return {"pixels": table["label"], "label": table["label"]}


def bad_labels(table):
    return {**table, "label": [10] * len(table["label"])}


def bad_image(table):
    return {**table, "image": [b"no image" for _ in table["image"]]}


def no_image(table):
    return {**table, "image": [{"bytes": None, "path": "a.png"} for _ in table["image"]]}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (bad_columns, "the columns pixels, label"),
        (bad_labels, "labels 10 to 10"),
    ],
)
def test_wrong_parquet_is_named(parquet_root, change, found):
    rewrite(parquet_root, change)
    with pytest.raises(ValueError, match=rf"^data\.root: .*holds {found}; allowed: CIFAR-10 as "):
        open_source("cifar10", parquet_root).split("test")[0]


@pytest.mark.parametrize("change", [bad_image, no_image])
def test_what_is_no_image_is_named(parquet_root, change):
    rewrite(parquet_root, change)
    with pytest.raises(BrokenImageError, match=r"^data\.root: '.*parquet, image 0 of a split' cannot be read as an im"):
        open_source("cifar10", parquet_root).split("test")[0]


def test_wrong_size_is_named(parquet_root, image_root):
    other = (image_root / "train" / "ant" / "0.png").read_bytes()
    rewrite(parquet_root, lambda t: {**t, "image": [other] * len(t["image"])})
    with pytest.raises(ValueError, match="holds an image of 50x40 pixels, number 3 of a split"):
        open_source("cifar10", parquet_root).split("test")[3]


def test_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"^data\.root: .* holds no CIFAR-10; allowed: .*; correct data\.root or add"):
        identify("cifar10", tmp_path)


class Intruder:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_batch_that_would_run_code_is_refused(batches_root, tmp_path, protocol):
    trace = tmp_path / "trace"
    file = batches_root / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps({"data": Intruder(trace), "labels": []}, protocol=protocol))
    with pytest.raises(ValueError, match=r"test_batch' holds no batch of CIFAR-10 \(.*is not data\)"):
        open_source("cifar10", batches_root).split("test")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"data": b""}), pickle.dumps([1, 2])])
def test_a_torn_batch_is_named(batches_root, content):
    (batches_root / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"^data\.root: .*test_batch' holds no batch of CIFAR-10"):
        open_source("cifar10", batches_root).split("test")


def test_a_batch_of_other_pixels_is_named(batches_root):
    content = pickle.dumps({"data": np.zeros((2, 5), dtype=np.float32), "labels": [0, 1]}, protocol=2)
    (batches_root / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"holds pixels of type float32 and shape \(2, 5\)"):
        open_source("cifar10", batches_root).split("test")


def test_the_real_one(real_cifar_root, tmp_path):
    identity = identify("cifar10", real_cifar_root, cache=tmp_path)
    assert identity["splits"] == {"train": 50000, "test": 10000}
    started = time.perf_counter()
    assert identify("cifar10", real_cifar_root, cache=tmp_path) == identity
    assert time.perf_counter() - started < 0.1
    source = open_source("cifar10", real_cifar_root)
    train = source.split("train")
    assert np.bincount(train.labels).tolist() == [5000] * 10
    pixels = np.stack([np.asarray(train[index][0]) for index in range(0, 50000, 25)]) / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), source.mean, atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), source.std, atol=0.01)
