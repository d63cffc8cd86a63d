import numpy as np
from sklearn.datasets import load_digits

from spp.data.registry import identify, open_source


def test_images_are_those_of_scikit_learn():
    source = open_source("digits", None)
    ours = []
    for split in (source.split("train"), source.split("test")):
        for index in range(len(split)):
            image, label = split[index]
            assert (image.mode, image.size) == ("L", (8, 8))
            ours.append((label, *np.rint(np.asarray(image) / 255 * 16).astype(int).ravel()))
    theirs = load_digits()
    expected = [(label, *row.astype(int)) for label, row in zip(theirs.target, theirs.data, strict=True)]
    assert sorted(ours) == sorted(expected)


def test_counts_and_classes():
    source = open_source("digits", None)
    train, test = source.split("train"), source.split("test")
    assert (len(train), len(test), source.num_classes, source.in_chans) == (1500, 297, 10, 1)
    for labels in (train.labels, test.labels):
        assert np.ptp(np.bincount(labels) / len(labels)) < 0.01
    assert identify("digits", None)["splits"] == {"train": 1500, "test": 297}


def test_constants_are_those_of_the_training_images():
    source = open_source("digits", None)
    pixels = source.split("train").pixels / 255
    np.testing.assert_allclose([source.mean, source.std], [[pixels.mean()], [pixels.std()]], atol=5e-5)


def test_fewer_training_images():
    few = open_source("digits", None, num_train=20)
    assert np.array_equal(few.split("train").labels, open_source("digits", None).split("train").labels[:20])
    assert len(few.split("test")) == 297
    assert identify("digits", None, num_train=20)["splits"] == {"train": 20, "test": 297}


def test_identity_does_not_depend_on_the_folder(tmp_path):
    assert identify("digits", tmp_path) == identify("digits", None)
