"""What holds in every form: `imagefolder` as folder, shards and parquet, made of the same JPEG files."""

import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from spp.data.images.broken import BrokenImageError
from spp.data.registry import identify, open_source

FORMS = ("folder", "shards", "parquet")
every_form = pytest.mark.parametrize("form", FORMS)


def read(root, cache, **options):
    return open_source("imagefolder", root, cache=cache, **options)


def contents(split):
    """Pixels as bytes and labels."""
    return [(image.size, image.tobytes(), label) for image, label in (split[index] for index in range(len(split)))]


@every_form
@pytest.mark.parametrize(("name", "part"), [("train", "train"), ("test", "val")])
def test_images_and_labels_are_those_that_were_written(photographs, tmp_path, form, name, part):
    source = read(photographs.make(form), tmp_path / "cache")
    split = source.split(name)
    expected = []
    for _, encoded, label in photographs.samples[part]:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        expected.append((image.size, image.tobytes(), label))
    assert contents(split) == expected
    assert split.labels.tolist() == [label for *_, label in expected]
    assert (source.num_classes, source.in_chans) == (3, 3)


@every_form
def test_identity(photographs, tmp_path, form):
    root = photographs.make(form)
    identity = identify("imagefolder", root, cache=tmp_path / "cache")
    assert identity["splits"] == {"train": 24, "test": 9}
    # To be raised with every change of how a file becomes pixels (tests/data/images/test_pixels.py).
    assert identity["decoding"] == 2
    assert identity == identify("imagefolder", photographs.make(form, "copy"))
    assert identity == identify("imagefolder", root, format=form, cache=tmp_path / "cache")
    assert identify("imagefolder", root, num_train=5)["splits"] == {"train": 5, "test": 9}
    others = {
        identify("imagefolder", root)["sha256"]
        for other in FORMS
        if other != form
        for root in [photographs.make(other)]
    }
    assert identity["sha256"] not in others


@every_form
def test_another_label_is_another_identity(photographs, tmp_path, form):
    cache = tmp_path / "cache"
    before = identify("imagefolder", photographs.make(form), cache=cache)
    name, encoded, label = photographs.samples["train"][3]
    photographs.samples["train"][3] = (name.replace("ant", "bee") + "x", encoded, label + 1)
    if form != "folder":  # where the label is not told by the name
        photographs.samples["train"][3] = (name, encoded, label + 1)
    after = identify("imagefolder", photographs.make(form, "changed"), cache=cache)
    assert before["splits"] == after["splits"]
    assert before["sha256"] != after["sha256"]


@pytest.mark.parametrize("form", ["shards", "parquet"])
def test_a_changed_file_is_read_anew(photographs, tmp_path, form):
    root, cache = photographs.make(form), tmp_path / "cache"
    before = identify("imagefolder", root, cache=cache)
    read(root, cache).split("train")[3]
    name, _, label = photographs.samples["train"][3]
    other = photographs.samples["train"][11][1]
    photographs.samples["train"][3] = (name, other, label + 1)
    changed = photographs.make(form, "changed")
    for file in changed.rglob("train*"):
        file.replace(root / file.relative_to(changed))
        os.utime(root / file.relative_to(changed), ns=(1, 1))
    assert identify("imagefolder", root, cache=cache)["sha256"] != before["sha256"]
    image, new_label = read(root, cache).split("train")[3]
    assert new_label == label + 1
    assert image.tobytes() == Image.open(io.BytesIO(other)).convert("RGB").tobytes()


@pytest.mark.parametrize("form", ["shards", "parquet"])
def test_the_index_is_kept_in_the_cache_and_not_beside_the_data(photographs, tmp_path, form):
    root, cache = photographs.make(form), tmp_path / "cache"
    files = sorted(root.rglob("*"))
    expected = contents(read(root, cache).split("test"))
    assert sorted(root.rglob("*")) == files
    times = {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}
    assert any(file.name.startswith("index-") for file in times)
    assert contents(read(root, cache).split("test")) == expected
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()} == times
    torn = next(file for file in times if file.name.startswith("index-"))
    torn.write_bytes(torn.read_bytes()[:50])
    assert contents(read(root, cache).split("test")) == expected


def test_a_flipped_bit_of_the_index_is_noticed(photographs, tmp_path):
    root, cache = photographs.make("shards"), tmp_path / "cache"
    expected = read(root, cache).split("train").labels.tolist()
    (index,) = cache.glob("index-*-train-*.npy")
    content = index.read_bytes()
    for place in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[place] ^= 1
        index.write_bytes(flipped)
        assert read(root, cache).split("train").labels.tolist() == expected


def test_a_root_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"^data\.root: [^\n]*; allowed: [^\n]*; [^\n]*$"):
        identify("imagefolder", "/proc")


@every_form
def test_fewer_images_come_from_all_classes(photographs, tmp_path, form):
    rng = np.random.default_rng(0)
    if form != "folder":  # an order in which the classes are mixed
        rng.shuffle(photographs.samples["train"])
    split = read(photographs.make(form), tmp_path / "cache", num_train=7).split("train")
    labels = [label for *_, label in photographs.samples["train"]]
    chosen = sorted(sorted(range(24), key=lambda index: (labels[:index].count(labels[index]), labels[index]))[:7])
    assert split.labels.tolist() == [labels[index] for index in chosen]
    assert contents(split)[6][2] == labels[chosen[6]]


@every_form
def test_hidden_files_do_not_count(photographs, tmp_path, form):
    root = photographs.make(form)
    before = identify("imagefolder", root)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        (folder / "._train-0000.tar").write_bytes(b"a resource fork")
        (folder / ".train-0.parquet").write_bytes(b"of another system")
        (folder / "._00.jpg").write_bytes(b"as it makes them")
    (root / "train" / ".cache").mkdir(parents=True, exist_ok=True)
    assert identify("imagefolder", root, format=form) == before
    assert identify("imagefolder", root) == before


def test_the_form_is_named_where_two_lie_in_one_folder(photographs, tmp_path):
    root = photographs.make("shards")
    photographs.make("folder").joinpath("train").rename(root / "train")
    with pytest.raises(ValueError, match=r"^data\.format: null leaves open which of folder and shards in .* use data"):
        identify("imagefolder", root)
    assert identify("imagefolder", root, format="shards")["splits"] == {"train": 24, "test": 9}
    (tmp_path / "set-folder" / "val").rename(root / "val")
    assert identify("imagefolder", root, format="folder")["splits"] == {"train": 24, "test": 9}


@pytest.mark.parametrize(
    ("form", "problem"), [("folder", "lacks train"), ("shards", "no file of train"), ("parquet", "no file of train")]
)
def test_a_form_that_is_not_there(tmp_path, form, problem):
    with pytest.raises(ValueError, match=rf"^data\.root: .*{problem}.*; allowed: .*; correct data\.root"):
        identify("imagefolder", tmp_path, format=form)


@every_form
def test_splits_travel_to_other_processes(photographs, tmp_path, form):
    split = read(photographs.make(form), tmp_path / "cache").split("test")
    expected = contents(split)
    assert contents(pickle.loads(pickle.dumps(split))) == expected


def break_image(root, form, cache):
    """Make the first image to train on unreadable without changing what is known beforehand."""
    if form == "folder":
        (root / "train" / "ant" / "00.jpg").write_bytes(b"torn")
    elif form == "shards":
        file = root / "train-0000.tar"
        file.write_bytes(file.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0", 1))
    else:
        read(root, cache).split("train")[0]
        pack = next(cache.rglob("train-00000*.images"))
        pack.write_bytes(pack.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0", 1))


@every_form
def test_a_broken_image_is_named(photographs, tmp_path, form):
    root, cache = photographs.make(form), tmp_path / "cache"
    break_image(root, form, cache)
    split = read(root, cache).split("train")
    with pytest.raises(
        BrokenImageError,
        match=r"^data\.root: '.*set-.*00\.jpg' cannot be read as an image \(no known kind of image\); allowed: .*; "
        r"replace or delete it, or train without it by data\.on_error=skip$",
    ):
        split[0]
    assert split[1][1] == 0


@every_form
def test_a_file_that_vanishes_is_named(photographs, tmp_path, form):
    root, cache = photographs.make(form), tmp_path / "cache"
    split = read(root, cache).split("train")
    for file in root.rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(BrokenImageError, match=r"cannot be read as an image \(.*No such file"):
        split[0]


def test_a_link_that_leads_nowhere(photographs, tmp_path, caplog):
    root = photographs.make("folder")
    before = identify("imagefolder", root)
    file = root / "train" / "ant" / "00.jpg"
    file.unlink()
    file.symlink_to("nowhere")
    cache = tmp_path / "cache"
    identity = identify("imagefolder", root, on_error="skip", cache=cache)
    assert identity["on_error"] == "skip"
    assert identity["splits"] == before["splits"]
    assert "00.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"^data\.root: '.*00\.jpg' is missing: .*; allowed: .*data\.on_error=skip$"):
        identify("imagefolder", root, cache=cache)


@pytest.mark.parametrize("form", ["shards", "parquet"])
def test_a_torn_file_ends_the_planning_or_is_left_out(photographs, tmp_path, form, caplog):
    root, cache = photographs.make(form), tmp_path / "cache"
    file = sorted(root.rglob("train-*"))[-1]
    file.write_bytes(file.read_bytes()[:4000])
    for _ in range(2):  # the second time from the cache
        kept = identify("imagefolder", root, on_error="skip", cache=cache)["splits"]["train"]
        assert kept in {"shards": range(20, 24), "parquet": [18]}[form]
        assert len(read(root, cache, on_error="skip").split("train")) == kept
    assert file.name in caplog.text
    for ask in (identify, open_source):
        with pytest.raises(ValueError, match=rf"^data\.root: '.*{file.name}' .*; fetch it again, or train without it"):
            ask("imagefolder", root, cache=cache)


def test_a_missing_one_of_numbered_files(photographs, tmp_path, caplog):
    root, cache = photographs.make("parquet"), tmp_path / "cache"
    (root / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(ValueError, match=r"^data\.root: .* lacks 'train-00001-of-00003\.parquet' \(1 missing\); "):
        identify("imagefolder", root, cache=cache)
    assert identify("imagefolder", root, on_error="skip", cache=cache)["splits"] == {"train": 15, "test": 9}
    assert "train-00001-of-00003" in caplog.text


@pytest.mark.parametrize("form", ["shards", "parquet"])
@pytest.mark.parametrize(("part", "label"), [("val", 3), ("val", -1), ("train", -1)])
def test_a_class_out_of_range(photographs, tmp_path, form, part, label):
    name, encoded, _ = photographs.samples[part][1]
    photographs.samples[part][1] = (name, encoded, label)
    with pytest.raises(ValueError, match=r"^data\.root: .* '(ant/01\.jpg|.*/train-0000\.tar)'.*; allowed: "):
        identify("imagefolder", photographs.make(form))


def test_words_that_do_not_fit(photographs):
    root = photographs.make("folder")
    with pytest.raises(ValueError, match=r"^data\.format: 'wds' is not a form of imagefolder; allowed: null, folder, "):
        identify("imagefolder", root, format="wds")
    with pytest.raises(ValueError, match=r"^data\.format: 'folder' is not a form of digits; allowed: null; use null"):
        open_source("digits", None, format="folder")
    with pytest.raises(ValueError, match=r"^data\.on_error: 'stop' is not allowed; allowed: fail, skip; use fail"):
        open_source("imagefolder", root, on_error="stop")
