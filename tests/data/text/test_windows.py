"""Windows of tokens by the published rules, re-written here from the description of them."""

import random

import pytest
import torch

from spp.data.text.source import Text
from spp.data.text.windows import calibration_windows, consecutive_windows

LETTERS = Text(lambda split: ["abc", "defgh", "ijklmnopqrstuvwxyz"] if split == "train" else [])


def encode(text):
    return [ord(letter) for letter in text]


def test_crops_begin_where_pythons_generator_says():
    joined = "abc defgh ijklmnopqrstuvwxyz"
    random.seed(7)
    expected = []
    for _ in range(3):
        start = random.randint(0, len(joined) - 5 - 1)
        expected.append(encode(joined[start : start + 5]))
    assert calibration_windows(LETTERS, encode, 3, 5, seed=7).tolist() == expected


def test_documents_are_drawn_until_one_is_longer_than_a_window_and_never_joined():
    documents = ["short", "a" * 9, "b" * 12]
    text = Text(lambda split: documents, rule="documents")
    random.seed(3)
    expected = []
    while len(expected) < 6:
        document = documents[random.randint(0, len(documents) - 1)]
        if len(document) > 8:
            start = random.randint(0, len(document) - 8 - 1)
            expected.append(encode(document[start : start + 8]))
    assert calibration_windows(text, encode, 6, 8, seed=3).tolist() == expected


def test_a_text_shorter_than_asked_for_is_one_line():
    with pytest.raises(ValueError, match=r"^calibration.num_windows: 6 windows of 5 tokens [^\n]* up to 5 windows; "):
        calibration_windows(LETTERS, encode, 6, 5, seed=0)
    short = Text(lambda split: ["tiny"], rule="documents")
    with pytest.raises(ValueError, match=r"^calibration.length: none of \d+ documents [^\n]* more than 5 tokens; "):
        calibration_windows(short, encode, 1, 5, seed=0)


def test_windows_to_measure_on_follow_each_other_and_the_tail_is_dropped():
    tokens = torch.arange(11)
    assert consecutive_windows(tokens, 3, None, "test").tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert consecutive_windows(tokens, 3, 1, "test").tolist() == [[3, 4, 5]]
    assert consecutive_windows(torch.arange(40), 2, 5, "test")[:, 0].tolist() == [4, 12, 20, 28, 36]
    with pytest.raises(ValueError, match=r"^data.num_windows: 4 windows of 3 tokens are not in the test text of 11"):
        consecutive_windows(tokens, 3, 4, "test")
