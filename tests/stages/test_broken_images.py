"""What a broken image does to a run, and to the keys of its stages."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from spp.cli.main import main

WORDS = [
    "data=imagenet", "recipe=digits", "debug=fast", "data.img_size=32", "data.val_fraction=0.2",
    "model.kwargs.patch_size=8",
    *(f"{stage}.batch_size=8" for stage in ("dense", "update", "prune", "finetune")),
]  # fmt: skip


@pytest.fixture
def words(tmp_path):
    """A run on 40 images of two classes; the files of a quarter of them are no images."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for part, count in (("train", 20), ("val", 4)):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                file = root / part / name / f"{number}.png"
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
                if part == "train" and number < 5:
                    file.write_bytes(b"torn")
    return [*WORDS, f"data.root={root}", f"paths.store={tmp_path / 'store'}"]


def keys_of(words, capsys):
    assert main(["plan", *words]) == 0
    return re.findall(r"\b[0-9a-f]{8}\b", capsys.readouterr().out)


def test_by_default_the_run_ends_with_the_name_of_the_file(words, capsys):
    assert main(["run", *words]) == 1
    assert re.search(r"data\.root: '.*(ant|bee)/[0-4]\.png' cannot be read as an image", capsys.readouterr().out)


def test_skipped_images_are_counted_in_the_summary(words, tmp_path):
    assert main(["run", *words, "data.on_error=skip"]) == 0
    files = list((tmp_path / "store").glob("stages/*/*/summary.json"))
    assert len(files) == 9
    # The test set is whole, and that is all that a measuring has to open of a member that was trained on.
    counts = {file: json.loads(file.read_text())["num_skipped"] for file in files}
    assert all(0 < count <= 10 for file, count in counts.items() if file.parents[1].name != "measure")
    assert all(count <= 10 for count in counts.values())


def test_keys_tell_what_is_skipped_and_not_how_the_form_was_found(words, capsys):
    plain = keys_of(words, capsys)
    assert len(plain) == 9
    assert keys_of([*words, "data.format=folder", "data.on_error=fail"], capsys) == plain
    assert not set(keys_of([*words, "data.on_error=skip"], capsys)) & set(plain)


def test_a_form_that_is_none(words, capsys):
    assert main(["plan", *words, "data.format=zip"]) == 2
    assert "data.format: 'zip' is not a form of imagefolder; allowed: null, folder, shards, parquet" in str(
        capsys.readouterr().err
    )
