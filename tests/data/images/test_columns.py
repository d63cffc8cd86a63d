"""Tables of the hub with other columns: found by type, asked for by name, or refused in words of the table."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spp.data.registry import identify, open_source, read_data


def cell(value):
    stream = io.BytesIO()
    Image.new("L", (8, 8), value).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture
def write(tmp_path):
    def make(**columns):
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        for part in ("train", "test"):
            pq.write_table(pa.table(columns), root / f"{part}-0.parquet")
        return root

    return make


IMAGES = [cell(10 * number) for number in range(4)]


def test_the_only_columns_of_their_types_are_taken(write, tmp_path):
    root = write(picture=IMAGES, name=list("abcd"), species=[0, 2, 1, 0])
    split = open_source("imagefolder", root, cache=tmp_path / "cache").split("train")
    assert split.labels.tolist() == [0, 2, 1, 0]
    assert [np.asarray(split[place][0]).max() for place in range(4)] == [0, 10, 20, 30]


@pytest.mark.parametrize(("column", "labels"), [("coarse", [0, 0, 1, 1]), ("fine", [0, 1, 2, 3])])
def test_a_column_that_is_asked_for_is_read_and_known(column, labels, write, tmp_path):
    root = write(img=IMAGES, coarse=[0, 0, 1, 1], fine=[0, 1, 2, 3])
    with pytest.raises(
        ValueError, match=r"^data.root: [^\n]*several could be the label: coarse, fine; allowed: [^\n]*$"
    ):
        open_source("imagefolder", root, cache=tmp_path / "cache").split("train")
    for _ in range(2):  # the second time from the cache
        split = open_source("imagefolder", root, cache=tmp_path / "cache", label_column=column).split("train")
        assert split.labels.tolist() == labels
    found = [identify("imagefolder", root, cache=tmp_path / "cache", label_column=name) for name in ("coarse", "fine")]
    assert found[0] != found[1]
    assert found[0]["columns"] == [None, "coarse"]


def test_images_of_two_columns_are_not_mixed_up(write, tmp_path):
    root = write(small=IMAGES, large=IMAGES[::-1], label=[0, 1, 0, 1])
    first = []
    for column in ("small", "large"):
        split = open_source("imagefolder", root, cache=tmp_path / "cache", image_column=column).split("train")
        first.append(np.asarray(split[0][0]).max())
    assert first == [0, 30]


@pytest.mark.parametrize(
    "columns", [{"img": IMAGES, "label": list("abcd")}, {"img": list("abcd"), "label": [0, 1, 0, 1]}]
)
def test_a_refusal_speaks_of_the_table(columns, write):
    with pytest.raises(
        ValueError, match=r"^data.root: [^\n]*img \([^\n]*label \([^\n]*; allowed: [^\n]*labels[^\n]*$"
    ) as refused:
        open_source("imagefolder", write(**columns)).split("train")
    assert "pyarrow" not in str(refused.value)


def test_a_column_that_is_not_there_is_named(write):
    with pytest.raises(ValueError, match=r"of which 'x' is no image; allowed: [^\n]*; say data.image_column=img$"):
        open_source("imagefolder", write(img=IMAGES, label=[0, 1, 0, 1]), image_column="x").split("train")
    with pytest.raises(ValueError, match=r"^data.image_column, data.label_column: [^\n]* are not allowed for digits; "):
        read_data({"name": "digits", "img_size": 8, "label_column": "x"}, "cache")


@pytest.mark.parametrize("name", ["train-000.tar.gz", "train.tgz", "train/000.tar.zst"])
def test_compressed_shards_are_named_as_such(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"^data.root: '[^']*{name}' is compressed shards[^\n]*; allowed: [^\n]*$"):
        identify("imagefolder", tmp_path)


@pytest.mark.parametrize(
    ("name", "root"),
    [("plain/train-0.parquet", "plain"), ("a/b/train/0.parquet", "a/b"), ("a/data/train-0.parquet", "a")],
)
def test_tables_in_nested_folders_are_named_as_such(name, root, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        ValueError, match=rf"is a table in a folder that is not looked into; [^\n]*; say data.root=[^\n]*/{root}$"
    ):
        identify("imagefolder", tmp_path)
