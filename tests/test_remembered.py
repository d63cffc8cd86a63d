import os

import pytest

from spp.models.pretrained import hashes_of
from spp.remembered import read_remembered, write_remembered


def test_a_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "cache" / "x.json"
    write_remembered(file, ["question", 1])
    assert read_remembered(file) == ["question", 1]
    content = file.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            file.write_bytes(flipped)
            assert read_remembered(file) in (None, ["question", 1])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null\n0\n", b"[" * 100_000])
def test_what_is_damaged_is_not_read(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert read_remembered(tmp_path / "x.json") is None
    assert read_remembered(tmp_path / "no.json") is None


@pytest.mark.parametrize("damage", [b"", b"{", b'["a"]', b"\xff"])
def test_hashes_of_models_outlive_damage_of_their_memory(tmp_path, damage):
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    right = hashes_of(folder, cache)
    assert right == hashes_of(folder, None)
    for file in cache.iterdir():
        file.write_bytes(damage)
    assert hashes_of(folder, cache) == right


def test_nothing_is_left_of_what_cannot_be_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_remembered(tmp_path / "x.json", 1)
    assert list(tmp_path.iterdir()) == []
