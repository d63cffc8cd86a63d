import shutil

import numpy as np
import pytest
from PIL import Image

from spp.data.registry import identify, open_source


def test_classes_and_images(image_root):
    source = open_source("imagefolder", image_root)
    train, test = source.split("train"), source.split("test")
    assert (source.num_classes, source.in_chans, len(train), len(test)) == (3, 3, 18, 6)
    assert train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    image, label = train[7]
    assert label == 1
    expected = Image.open(image_root / "train" / "bee" / "1.png")
    assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert identify("imagefolder", image_root)["splits"] == {"train": 18, "test": 6}


def test_grey_files_become_colour(image_root):
    assert open_source("imagefolder", image_root).split("train")[17][0].mode == "RGB"


def test_test_folder_serves_where_val_is_missing(image_root):
    expected = open_source("imagefolder", image_root).split("test").labels
    (image_root / "val").rename(image_root / "test")
    assert np.array_equal(open_source("imagefolder", image_root).split("test").labels, expected)


def test_fewer_images_come_from_all_classes(image_root):
    split = open_source("imagefolder", image_root, num_train=7).split("train")
    assert np.bincount(split.labels).tolist() == [3, 2, 2]
    for number in range(3):
        expected = Image.open(image_root / "train" / "ant" / f"{number}.png")
        assert np.array_equal(np.asarray(split[number][0]), np.asarray(expected))
    assert identify("imagefolder", image_root, num_train=7)["splits"] == {"train": 7, "test": 6}


def test_identity_follows_names_and_sizes(image_root, tmp_path):
    before = identify("imagefolder", image_root)
    copy = tmp_path / "copy"
    shutil.copytree(image_root, copy)
    assert identify("imagefolder", copy) == before
    file = copy / "val" / "cow" / "0.png"
    file.write_bytes(file.read_bytes() + b" ")
    assert identify("imagefolder", copy)["sha256"] != before["sha256"]
    shutil.copy(image_root / "val" / "cow" / "0.png", file)
    (copy / "train" / "ant" / "5.png").rename(copy / "train" / "ant" / "6.png")
    assert identify("imagefolder", copy)["sha256"] != before["sha256"]


def test_identity_is_remembered_until_a_class_folder_changes(image_root, tmp_path):
    def identity():
        return identify("imagefolder", image_root, cache=tmp_path / "cache")

    before = identity()
    file = image_root / "train" / "ant" / "0.png"
    file.write_bytes(file.read_bytes() + b" ")
    assert identity() == before
    assert identify("imagefolder", image_root) != before
    shutil.copy(file, file.with_name("7.png"))
    assert identity()["splits"] == {"train": 19, "test": 6}


def test_a_broken_image_is_named(image_root):
    (image_root / "train" / "ant" / "2.png").write_bytes(b"torn")
    split = open_source("imagefolder", image_root).split("train")
    with pytest.raises(ValueError, match=r"^data\.root: '.*train/ant/2\.png' cannot be read as an image .*; replace"):
        split[2]


def test_a_torn_image_is_named(image_root):
    file = image_root / "train" / "bee" / "0.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"train/bee/0\.png' cannot be read"):
        open_source("imagefolder", image_root).split("train")[6]


def test_a_class_that_train_lacks_is_named(image_root):
    (image_root / "val" / "cow").rename(image_root / "val" / "dog")
    with pytest.raises(ValueError, match=r"has the class 'dog', which train lacks"):
        identify("imagefolder", image_root)


def test_a_class_without_images_is_named(image_root):
    (image_root / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"train/dog' has no image"):
        identify("imagefolder", image_root)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_part_is_named(image_root, missing):
    shutil.rmtree(image_root / missing)
    with pytest.raises(ValueError, match=r"^data\.root: .* lacks train, or val and test; allowed: "):
        identify("imagefolder", image_root)


def test_a_part_without_classes_is_named(image_root):
    shutil.rmtree(image_root / "train")
    (image_root / "train").mkdir()
    with pytest.raises(ValueError, match=r"train' has no class folder"):
        open_source("imagefolder", image_root)
