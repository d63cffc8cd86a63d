import os
import pickle

import pytest

from spp.data.handles import MAX_OPEN, FileHandles


def open_files():
    return {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def test_bytes_at_an_offset(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(bytes(range(100)))
    handles = FileHandles()
    assert handles.read(file, 90, 5) == bytes(range(90, 95))
    assert handles.read(file, 3, 0) == b""
    with pytest.raises(EOFError, match="10 bytes instead of 11"):
        handles.read(file, 90, 11)


def test_only_some_stay_open_and_none_in_the_end(tmp_path):
    files = [tmp_path / str(number) for number in range(MAX_OPEN + 5)]
    handles = FileHandles()
    for file in files:
        file.write_bytes(b"x")
        assert handles.read(file, 0, 1) == b"x"
    assert len([file for file in files if str(file) in open_files()]) == MAX_OPEN
    del handles
    assert not [file for file in files if str(file) in open_files()]


def test_a_forked_process_opens_its_own(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"a")
    other.write_bytes(b"b")
    handles = FileHandles()
    handles.read(file, 0, 1)
    child = os.fork()
    if child == 0:
        handles.read(other, 0, 1)
        os._exit(str(file) in open_files() or str(other) not in open_files())
    assert os.waitpid(child, 0)[1] == 0
    assert str(file) in open_files()


def test_pickled_without_what_is_open(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    handles = FileHandles()
    handles.read(tmp_path / "a", 0, 1)
    copy = pickle.loads(pickle.dumps(handles))
    assert copy.read(tmp_path / "a", 0, 1) == b"a"
