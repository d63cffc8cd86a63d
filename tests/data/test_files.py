import hashlib

import pytest

from spp.data.files import hash_lines, limit_train, remember, require_root, stamp_of


def test_hash_of_a_manifest_is_that_of_its_text():
    assert hash_lines(["a 1", "b 2"]) == hashlib.sha256(b"a 1\nb 2\n").hexdigest()


@pytest.mark.parametrize(("num_train", "expected"), [(None, 7), (3, 3), (7, 7)])
def test_limit(num_train, expected):
    assert limit_train(7, num_train) == expected


def test_no_root():
    with pytest.raises(ValueError, match=r"^data\.root: None is no folder; allowed: a folder with cats;"):
        require_root(None, "cats")


class Counting:
    """Counts how often the content was read."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"sha256": str(self.calls)}


def test_an_identity_is_remembered_until_the_stamp_changes(tmp_path):
    root, cache = tmp_path / "root", tmp_path / "cache"
    root.mkdir()
    file = root / "x"
    file.write_text("1")
    compute = Counting()

    def identity():
        return remember(cache, root, stamp_of([file], root), compute)

    assert identity() == identity() == {"sha256": "1"}
    file.write_text("22")
    assert identity() == {"sha256": "2"}
    assert len(list(cache.iterdir())) == 1


def test_folders_are_remembered_apart(tmp_path):
    compute = Counting()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        remember(tmp_path / "cache", tmp_path / name, [], compute)
    assert compute.calls == 2


def test_a_torn_memory_is_forgotten(tmp_path):
    compute = Counting()
    remember(tmp_path / "cache", tmp_path, [], compute)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(file.read_text()[:10])
    assert remember(tmp_path / "cache", tmp_path, [], compute) == {"sha256": "2"}


def test_a_flipped_bit_of_a_memory_is_noticed(tmp_path):
    compute = Counting()
    remember(tmp_path / "cache", tmp_path, [], compute)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            file.write_bytes(flipped)
            calls = compute.calls
            assert remember(tmp_path / "cache", tmp_path, [], compute) in ({"sha256": "1"}, {"sha256": str(calls + 1)})


def test_nothing_is_remembered_without_a_place(tmp_path):
    compute = Counting()
    remember(None, tmp_path, [], compute)
    remember(None, tmp_path, [], compute)
    assert compute.calls == 2
