import hashlib

import pytest

from spp.store.manifest import RECORD, differences, manifest_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "inner" / "b").write_bytes(b"")
    (tmp_path / RECORD).write_text("{}")
    return tmp_path


def test_a_manifest_has_every_file_but_the_record(folder):
    assert manifest_of(folder) == {
        "a": {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()},
        "inner/b": {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
    }


def test_what_was_added_later_is_no_difference_and_what_changed_is(folder):
    manifest = manifest_of(folder)
    (folder / "later").write_bytes(b"x")
    assert differences(folder, manifest) == []
    (folder / "a").write_bytes(b"abd")
    (folder / "inner" / "b").unlink()
    assert differences(folder, manifest) == ["a has another sha256 than when it was written", "inner/b is missing"]
