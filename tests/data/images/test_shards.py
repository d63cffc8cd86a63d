import numpy as np
import pytest

from spp.data.registry import identify, open_source


@pytest.fixture
def shards(photographs):
    return photographs.make("shards")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/{}.tar", "val/{}.tar"),
        ("imagenet1k-train-{}.tar", "imagenet1k-validation-{}.tar"),
        ("data/train-{}.tar", "data/test-{}.tar"),
    ],
)
def test_other_names_of_shards(shards, tmp_path, train, test):
    other = tmp_path / "other"
    for file in shards.iterdir():
        part, _, number = file.stem.partition("-")
        target = other / {"train": train, "val": test}[part].format(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    source = open_source("imagefolder", other)
    assert (len(source.split("train")), len(source.split("test"))) == (24, 9)


def test_samples_are_found_whatever_lies_between(shards, photographs, tar_writer):
    """Classes before images, other files, folders with dots in their names, capitals, a line end behind the class."""
    (_, first, _), (_, second, _) = photographs.samples["train"][:2]
    members = {
        "a.b/x.cls": b"2\n",
        "README": b"text",
        "a.b/x.jpg": first,
        "a.b/._x.jpg": b"hidden",
        "a.b/y.seg.png": b"another kind of label",
        "c/x.JPEG": second,
        "a.b/x.json": b"{}",
        "c/x.cls": b"1",
    }
    for file in shards.glob("train-*"):
        file.unlink()
    tar_writer(shards / "train-0.tar", members)
    train = open_source("imagefolder", shards).split("train")
    assert train.labels.tolist() == [2, 1]
    assert [train[index][0].size for index in (0, 1)] == [(60, 45), (60, 46)]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"x.jpg": b"1"}, "holds 'x.jpg' without a number as its class in x.cls"),
        ({"x.jpg": b"1", "x.cls": b"ant"}, "holds 'x.jpg' without a number as its class in x.cls"),
        ({"x.jpg": b"1", "x.cls": b"0", "x.png": b"2"}, "holds 'x' twice"),
    ],
)
def test_a_sample_that_is_none(shards, tar_writer, members, problem, caplog):
    tar_writer(shards / "train-9999.tar", members)
    with pytest.raises(ValueError, match=rf"^data\.root: '.*train-9999\.tar' {problem}; allowed: "):
        identify("imagefolder", shards)
    kept = identify("imagefolder", shards, on_error="skip")["splits"]["train"]
    assert kept == 25 if "twice" in problem else kept == 24
    assert problem in caplog.text


def test_a_torn_image_inside_a_whole_shard(shards, photographs, tar_writer):
    tar_writer(shards / "train-9999.tar", {"x.jpg": photographs.samples["train"][0][1][:-20], "x.cls": b"0"})
    train = open_source("imagefolder", shards).split("train")
    with pytest.raises(ValueError, match=r"train-9999\.tar: x\.jpg' cannot be read as an image \(.*truncated"):
        train[24]


def test_a_shard_that_shrinks_while_it_is_used(shards):
    train = open_source("imagefolder", shards).split("train")
    file = shards / "train-0001.tar"
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(
        ValueError, match=r"train-0001\.tar: ant/05\.jpg' cannot be read as an image \(88 bytes instead"
    ):
        train[5]


def test_more_shards_than_files_may_be_open(photographs, tmp_path):
    samples = photographs.samples["train"]
    photographs.samples["train"] = [(f"ant/{number}", samples[number % 8][1], 0) for number in range(150)]
    photographs.samples["val"] = [("ant/0", samples[0][1], 0)]
    root = tmp_path / "many"
    root.mkdir()
    for part in ("train", "val"):
        photographs._make_shards(root, part, photographs.samples[part], per_shard=1)
    train = open_source("imagefolder", root).split("train")
    sizes = [train[index][0].size for index in np.random.default_rng(0).permutation(150)]
    assert len(sizes) == 150
    assert len(train.handles._descriptors) <= 64
