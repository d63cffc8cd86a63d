"""Captioned images: scenes of digits, files of captions, what is refused and what is left out."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from spp.data.captions.sources import digit_scenes
from spp.data.captions.tokenizer import FIRST, LAST, PADDING, UNKNOWN, WordTokenizer
from spp.data.images.broken import BrokenImageError
from spp.data.loaders import open_data
from spp.data.registry import display_name, fingerprint, num_train_samples, read_data

SCENES = {"name": "digit_scenes", "img_size": 20, "length": 19, "root": None}


def opened(values, augment=None, batch_size=4):
    config, runtime = read_data(values, "cache")
    return open_data(config, runtime, batch_size=batch_size, augment=augment or {}, seed=0, num_workers=0)


@pytest.fixture(scope="module")
def scenes():
    return opened(SCENES)


def test_a_sentence_says_which_digit_is_in_which_corner(scenes):
    split = digit_scenes._scenes("val")
    pixels, labels = digit_scenes._digits("val")
    by_name = {}
    for image, label in zip(pixels, labels, strict=True):
        by_name.setdefault(digit_scenes.NAMES[label], []).append(image)
    for number in range(30):
        picture = np.asarray(split.read(number))
        for caption in split.entries[number].captions:
            words = caption.replace(" and a ", " a ").split(" a ")
            words[0] = words[0].removeprefix("a ")
            assert 2 <= len(words) <= 4
            filled = set()
            for part in words:
                name, down, right = part.split()
                top, left = 10 * (down == "bottom"), 10 * (right == "right")
                corner = picture[top : top + 10, left : left + 10]
                filled.add((top, left))
                windows = [corner[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
                assert any(np.array_equal(window, digit) for window in windows for digit in by_name[name])
            for top, left in {(0, 0), (0, 10), (10, 0), (10, 10)} - filled:
                assert not picture[top : top + 10, left : left + 10].any()


def test_splits_are_of_different_handwriting():
    digits = {name: {image.tobytes() for image in digit_scenes._digits(name)[0]} for name in ("train", "val", "test")}
    assert sum(map(len, digits.values())) == len(set.union(*digits.values()))
    assert [len(digit_scenes._scenes(name)) for name in digits] == [4000, 500, 1000]


def test_a_batch_of_train_has_one_caption_of_each_image_and_one_of_val_all(scenes):
    train, val = next(iter(scenes.train_dataloader())), next(iter(scenes.val_dataloader()))
    assert train["pixel_values"].shape == (4, 1, 20, 20)
    assert train["input_ids"].shape == (4, 1, 19)
    assert val["input_ids"].shape == (4, 2, 19)
    assert val["is_caption"].all()
    assert val["image"].tolist() == [0, 1, 2, 3]
    again = next(iter(opened(SCENES).train_dataloader()))
    assert all(torch.equal(train[name], again[name]) for name in train)
    assert scenes.num_train_samples == 8000
    assert len(scenes.split_indices[1]) == 500


def test_the_fingerprint_has_the_counts_that_planning_needs():
    config, runtime = read_data(SCENES, "cache")
    identity = fingerprint(config, runtime)
    assert identity["splits"] == {"train": 8000, "val": 500, "test": 1000}
    assert num_train_samples(config.from_spec({**config.identity(), "fingerprint": identity}, "data")) == 8000


def test_words_are_tokens_between_a_first_and_a_last():
    tokenizer = WordTokenizer(["two", "one"])
    assert tokenizer.encode_all(["One, two: three!"]) == [[FIRST, 4, 5, UNKNOWN, LAST]]
    assert tokenizer.vocab_size == 6
    # transformers takes 2 for an end whose number it does not know.
    assert tokenizer.last_token != 2


@pytest.fixture
def folder(tmp_path):
    """Ten images, of which the third is cut off, and captions of them in three forms."""
    (tmp_path / "val2014").mkdir()
    for number in range(10):
        pixels = np.full((12, 16, 3), 20 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val2014" / f"{number}.png")
    images = [
        {
            "filepath": "val2014",
            "filename": f"{number}.png",
            "split": ["train", "restval", "train", "train", "train", "train", "train", "train", "val", "test"][number],
            "sentences": [{"raw": f"Picture {number} is grey."}] * (1 + number % 3),
        }
        for number in range(10)
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    lines = [f"val2014/{number}.png,a picture {word}" for number in range(10) for word in ("one", "two")]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    return tmp_path


def coco(folder, **more):
    values = {"name": "karpathy", "root": str(folder), "captions": "dataset_coco.json", "img_size": 8, "length": 8}
    return values | more


def own(folder, **more):
    return {"name": "pairs", "captions": str(folder / "captions.csv"), "img_size": 8, "length": 8} | more


def test_the_split_of_karpathys_file(folder):
    config, runtime = read_data(coco(folder), "cache")
    identity = fingerprint(config, runtime)
    # restval belongs to train; samples of train are captions, those of the others images.
    assert identity["splits"] == {"train": 15, "val": 1, "test": 1}
    assert display_name(config.from_spec({**config.identity(), "fingerprint": identity}, "data")) == "coco"
    data = opened(coco(folder))
    (val,) = data.val_dataloader()
    assert val["is_caption"].tolist() == [[True, True, True]]
    assert data.num_train_samples == 15


def test_captions_that_an_image_does_not_have_are_padding(folder):
    content = json.loads((folder / "dataset_coco.json").read_text())
    content["images"][7]["split"] = "val"  # two captions, beside three of the other
    (folder / "dataset_coco.json").write_text(json.dumps(content))
    (val,) = opened(coco(folder)).val_dataloader()
    assert val["is_caption"].tolist() == [[True, True, False], [True, True, True]]
    assert not val["input_ids"][0, 2].any()


def test_lines_of_ones_own_belong_to_the_image_that_they_name(folder):
    data = opened(own(folder, val_fraction=0.2))
    assert (data.num_train_samples, len(data.split_indices[1]), len(data.test_samples())) == (12, 2, 2)
    (val,) = data.val_dataloader()
    assert val["input_ids"].shape == (2, 2, 8)
    (folder / "captions.jsonl").write_text(
        "\n".join(
            json.dumps({"image": f"val2014/{n}.png", "caption": "grey", "split": split})
            for n, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"])
        )
    )
    data = opened(own(folder, captions=str(folder / "captions.jsonl")))
    assert (data.num_train_samples, len(data.split_indices[1]), len(data.test_samples())) == (6, 2, 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("val2014/99.png,a picture", r"line 22 of captions.csv names the image 'val2014/99.png', which is not there"),
        ('val2014/2.png,"  "', r"line 6 of captions.csv has an empty caption"),
        ("val2014/3.png", r"line 22 of '.*captions.csv' has no text as caption"),
        ("val2014/3.png," + "long " * 7, r"the caption 'long long.*' at line 8 of captions.csv has 9 tokens.*up to 8"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(folder, line, expected):
    with (folder / "captions.csv").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(ValueError, match=expected) as caught:
        opened(own(folder)).split_indices  # noqa: B018 - it reads the captions
    assert "\n" not in str(caught.value)


def test_lines_that_cannot_be_used_are_left_out_and_counted_when_asked(folder, caplog):
    with (folder / "captions.csv").open("a") as stream:
        stream.write('val2014/99.png,a picture\nval2014/2.png,"  "\nval2014/3.png,' + "long " * 7 + "\n")
    data = opened(own(folder, on_error="skip", val_fraction=0.2))
    assert data.num_train_samples + 2 * (len(data.split_indices[1]) + len(data.test_samples())) == 20
    assert data.num_skipped == 3
    assert "left out: 1 with a missing image, first line 22 of captions.csv" in caplog.text


def test_a_broken_image_is_named_or_replaced_by_another_with_its_captions(folder):
    file = folder / "val2014" / "2.png"
    file.write_bytes(file.read_bytes()[:40])
    values = coco(folder)
    with pytest.raises(BrokenImageError, match=r"2.png' cannot be read as an image .*, image 2 of dataset_coco.json;"):
        list(opened(values).train_dataloader())
    data = opened({**values, "on_error": "skip"}, batch_size=1)
    tokens = {(int(b["image"]), tuple(b["input_ids"].flatten().tolist())) for b in data.train_dataloader()}
    assert data.num_skipped == 1
    assert {image for image, _ in tokens} == {0, 1, 3, 4, 5, 6, 7}
    assert len(tokens) == 7  # every image has its own words, also in the place of the broken one


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"captions": "missing.csv"}, r"missing.csv' cannot be read \(No such file or directory\)"),
        ({"length": None}, r"data.length: None is not allowed"),
        ({"on_error": "stop"}, r"data.on_error: 'stop' is not allowed; allowed: fail, skip"),
        ({"tokenizer": "/nowhere"}, r"data.tokenizer: '/nowhere' has none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, values, expected):
    with pytest.raises(ValueError, match=expected):
        opened(own(folder) | values)


def test_padding_is_behind_the_end(scenes):
    batch = next(iter(scenes.val_dataloader()))
    for row in batch["input_ids"].flatten(0, 1).tolist():
        end = row.index(LAST)
        assert row[0] == FIRST
        assert set(row[end + 1 :]) <= {PADDING}


def test_words_are_cut_alike_by_the_files_that_transformers_reads(tmp_path):
    captions = ["A two top left", "don't STOP; the Größe_2 of naïve cafés?", "", "  ÀÉ x-y 3.5  a two "]
    tokenizer = WordTokenizer(["a", "two", "don't", "größe_2", "naïve", "cafés", "àé", "5"])
    for name, content in tokenizer.files.items():
        (tmp_path / name).write_bytes(content)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert read(captions)["input_ids"] == tokenizer.encode_all(captions)
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (FIRST, LAST, PADDING)
