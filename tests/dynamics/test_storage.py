"""Damaged, foreign and missing files, and files that are replaced."""

import re

import pytest
import torch
from safetensors.torch import save_file

from spp.dynamics import storage
from spp.dynamics.storage import PATH_FORMAT
from spp.structure.cost import Cost
from spp.structure.pair import Pair

TENSORS = {
    f"{key}/{name}": torch.tensor(values)
    for name in ("a", "b")
    for key, values in (("entry", [1.5, torch.inf]), ("V", [0.5, -0.1]), ("S", [3, 0]))
}
PAIRS = [
    Pair("a", "mlp", 2, 7.5, 0.1 + 0.2, 1, False, "m", Cost(1e9 / 3, 12)),
    Pair("b", "qk", 2, 7, 2.0, 4, True, "n"),
]
META = {
    "preset": "priced",
    "by number": {"10": 1, "9": 2},
    "hyper": {"lr": 0.1 + 0.2},
    "provenance": {"note": "caf\u00e9", "none": None},
}


@pytest.fixture
def file(tmp_path):
    return storage.write(tmp_path / "deep" / "folder", TENSORS, PAIRS, META, PATH_FORMAT)


def test_what_is_written_is_read(file):
    for where in (file, file.parent):
        tensors, pairs, meta = storage.read(where, PATH_FORMAT)
        assert (pairs, meta) == (PAIRS, META)
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_the_same_path_is_the_same_bytes_and_replaces_the_file(file):
    content = file.read_bytes()
    storage.write(file.parent, {"entry/a": torch.zeros(5)}, [], {}, PATH_FORMAT)
    assert file.read_bytes() != content
    storage.write(file.parent, TENSORS, PAIRS, META, PATH_FORMAT)
    assert file.read_bytes() == content
    assert [entry.name for entry in file.parent.iterdir()] == ["path.safetensors"]


def test_a_write_that_fails_leaves_the_file_and_no_other(file):
    content = file.read_bytes()
    with pytest.raises(RuntimeError):
        storage.write(file.parent, {"entry/a": torch.eye(3).to_sparse()}, PAIRS, META, PATH_FORMAT)
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
    refused(file, "is no solution path, not 'spp-path-2'; give a file that SolutionPath.save wrote")
    save_file({"weight": torch.ones(3)}, file, {"spp": '{"format": "spp-path-99"}'})
    refused(file, "is 'spp-path-99', not 'spp-path-2'")


@pytest.mark.parametrize("change", [lambda byte: byte ^ 1, lambda byte: byte ^ 0x80, lambda byte: 0])
def test_a_byte_that_changes_is_noticed_or_means_the_same(file, change):
    content = file.read_bytes()
    messages = []
    for index, byte in enumerate(content):
        file.write_bytes(content[:index] + bytes([change(byte)]) + content[index + 1 :])
        try:
            tensors, pairs, meta = storage.read(file, PATH_FORMAT)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert (pairs, meta) == (PAIRS, META)
            assert tensors.keys() == TENSORS.keys()
            assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert len(messages) > len(content) / 2
    one_line = re.compile(f"path: {re.escape(str(file))} is [^\n]*; (copy it again|give a file)[^\n]*")
    assert all(one_line.fullmatch(message) for message in messages)


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "spp-path-2"}'])
def test_a_header_that_is_something_else_is_damage(file, content):
    save_file({"weight": torch.ones(3)}, file, {"spp": content})
    refused(file, "is damaged; copy it again or rerun the search")


@pytest.mark.parametrize(
    "tensors",
    [
        {name: tensor for name, tensor in TENSORS.items() if name != "V/b"},
        TENSORS | {"S/a": torch.zeros(3)},
        TENSORS | {"trace/steps": torch.tensor([4, 8])},
        TENSORS | {"trace/steps": torch.tensor([4, 8])} | {f"trace/gamma/{n}": torch.zeros(3, 2) for n in "ab"},
    ],
)
def test_every_pair_must_have_its_tensors(tmp_path, tensors):
    refused(storage.write(tmp_path, tensors, PAIRS, META, PATH_FORMAT), "is damaged")


def test_numbers_as_keys_are_read_as_text(tmp_path):
    written = storage.write(tmp_path, TENSORS, PAIRS, {"preset": "priced", "by number": {9: 2, 10: 1}}, PATH_FORMAT)
    assert storage.read(written, PATH_FORMAT)[2]["by number"] == {"9": 2, "10": 1}


def test_a_file_in_the_place_of_the_folder_is_refused(file):
    for folder in (file, file / "deeper"):
        with pytest.raises(ValueError, match=r"^path: .* a file is in its place; give another folder$"):
            storage.write(folder, TENSORS, PAIRS, META, PATH_FORMAT)


def test_missing(tmp_path):
    refused(tmp_path / "none", "does not exist; give the folder or file that SolutionPath.save wrote")
    refused(tmp_path, "does not exist")


def refused(where, message):
    with pytest.raises(ValueError, match=f"^path: .*{re.escape(where.name)}.* {message}") as caught:
        storage.read(where, PATH_FORMAT)
    assert "\n" not in str(caught.value)
