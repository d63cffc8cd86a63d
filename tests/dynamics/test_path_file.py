"""Damaged, foreign and missing files, and files that are replaced."""

import re

import pytest
import torch
from safetensors.torch import save_file

from spp.dynamics import path_file
from spp.structure.cost import Cost
from spp.structure.pairs import Pair

TENSORS = {"entry/a": torch.tensor([1.5, torch.inf], dtype=torch.float64), "S/a": torch.tensor([3, 0])}
PAIRS = [
    Pair("a", "mlp", 2, 7.5, 0.1 + 0.2, 1, False, "m", Cost(1e9 / 3, 12)),
    Pair("b", "qk", 2, 7, 2.0, 4, True, "n"),
]
META = {"preset": "priced", "hyper": {"lr": 0.1 + 0.2}, "provenance": {"note": "caf\u00e9", "none": None}}


@pytest.fixture
def file(tmp_path):
    return path_file.write(tmp_path / "deep" / "folder", TENSORS, PAIRS, META)


def test_what_is_written_is_read(file):
    for where in (file, file.parent):
        tensors, pairs, meta = path_file.read(where)
        assert (pairs, meta) == (PAIRS, META)
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_the_same_path_is_the_same_bytes_and_replaces_the_file(file):
    content = file.read_bytes()
    path_file.write(file.parent, {"entry/a": torch.zeros(5)}, [], {})
    assert file.read_bytes() != content
    path_file.write(file.parent, TENSORS, PAIRS, META)
    assert file.read_bytes() == content
    assert [entry.name for entry in file.parent.iterdir()] == ["path.safetensors"]


def test_a_write_that_fails_leaves_the_file_and_no_other(file):
    content = file.read_bytes()
    with pytest.raises(RuntimeError):
        path_file.write(file.parent, {"entry/a": torch.eye(3).to_sparse()}, PAIRS, META)
    assert file.read_bytes() == content
    assert [entry.name for entry in file.parent.iterdir()] == ["path.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_truncated(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    refused(file, "is truncated or no safetensors file; copy it again or rerun the search")


def test_foreign(file):
    file.write_text("a text of somebody else, long enough to be read as a header length")
    refused(file, "is truncated or no safetensors file")
    save_file({"weight": torch.ones(3)}, file)
    refused(file, "is no solution path, not spp-path-1; give a file that SolutionPath.save wrote")
    save_file({"weight": torch.ones(3)}, file, {"spp": '{"format": "spp-path-99"}'})
    refused(file, "is spp-path-99, not spp-path-1")


def test_missing(tmp_path):
    refused(tmp_path / "none", "does not exist; give the folder or file that SolutionPath.save wrote")
    refused(tmp_path, "does not exist")


def refused(where, message):
    with pytest.raises(ValueError, match=f"^path: .*{re.escape(where.name)}.* {message}") as caught:
        path_file.read(where)
    assert "\n" not in str(caught.value)
