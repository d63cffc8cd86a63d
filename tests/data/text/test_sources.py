"""Texts: what their parts are, and what their fingerprints tell."""

import gzip
import json

import pytest

from spp.data.registry import find_text, open_text, read_data, text_sources


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "valid.txt").write_text(" = A = \n \nfirst\nsecond\n")
    (tmp_path / "test.txt").write_text("one\n\ntwo\n")
    return tmp_path


def test_the_texts():
    assert text_sources() == ("c4", "pydocs", "textfiles", "wikitext2")


def test_pydocs_are_everywhere_and_their_parts_share_no_topic():
    text = open_text("pydocs", None, "data.name")
    parts = [set(text.pieces(split)) for split in ("train", "validation", "test")]
    assert all(len("".join(part)) > 10_000 for part in parts)
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert text.fingerprint() == open_text("pydocs", None, "data.name").fingerprint()


def test_without_train_the_first_half_of_validation_stands_in_for_it_and_that_is_said(lines):
    text = open_text("textfiles", str(lines), "data.name")
    assert text.pieces("train") == [" = A = \n", ""]
    assert text.pieces("validation") == ["first\n", "second\n"]
    assert text.joined("test") == "one\n\n\n\n\ntwo\n"
    assert text.fingerprint()["train"] == "first half of valid.txt"
    (lines / "train.txt").write_text("x\ny\n")
    with_train = open_text("textfiles", str(lines), "data.name")
    assert with_train.joined("train") == "x\n y\n"
    assert "train" not in with_train.fingerprint()


def test_wikitext_tells_whether_rare_words_were_replaced(lines):
    assert open_text("wikitext2", str(lines), "data.name").fingerprint()["form"] == "raw"
    (lines / "test.txt").write_text("a <unk> b, of which nobody knows the middle word\n")
    assert open_text("wikitext2", str(lines), "data.name").fingerprint()["form"] == "tokens with <unk>"


def test_c4_is_read_packed_and_as_it_is(tmp_path):
    content = "".join(json.dumps({"text": text}) + "\n" for text in ("one", "two"))
    with gzip.open(tmp_path / "c4-train.00000-of-01024.json.gz", "wt") as file:
        file.write(content)
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "c4-validation.00000-of-00008.json").write_text(content)
    text = open_text("c4", str(tmp_path), "calibration.name")
    assert (text.pieces("train"), text.rule) == (["one", "two"], "documents")
    assert text.joined("validation") == "one two"


@pytest.mark.parametrize(
    ("missing", "line"),
    [("test.txt", r"^data.root: '[^']*' has no test.txt; "), (None, r"^data.root: .* is no folder; ")],
)
def test_what_is_missing_is_one_line(lines, missing, line):
    root = lines / "nowhere"
    if missing:
        (lines / missing).unlink()
        root = lines
    with pytest.raises(ValueError, match=line):
        open_text("textfiles", str(root), "data.name").fingerprint()


def test_a_text_to_calibrate_with_is_found_beside_the_other_data(lines, tmp_path):
    (tmp_path / "all").mkdir()
    place = tmp_path / "all" / "textfiles"
    place.mkdir()
    for name in ("valid.txt", "test.txt"):
        (lines / name).rename(place / name)
    folder, identity = find_text("textfiles", None, str(tmp_path / "all"))
    assert (folder, identity["name"]) == (str(place), "textfiles")
    assert find_text("pydocs", None, str(tmp_path / "all"))[0] is None


@pytest.mark.parametrize("root", [None, "nowhere"])
@pytest.mark.parametrize("name", ["c4", "textfiles"])
def test_what_is_missing_of_a_text_to_calibrate_with_names_the_field_of_that(name, root, tmp_path):
    with pytest.raises(ValueError, match=r"^calibration.root: [^\n]*$") as caught:
        find_text(name, root and str(tmp_path / root), str(tmp_path))
    assert "data.root" not in str(caught.value)


def test_a_text_needs_the_length_of_a_window():
    with pytest.raises(ValueError, match=r"^data.length: None is not allowed for pydocs; "):
        read_data({"name": "pydocs"}, "cache")
