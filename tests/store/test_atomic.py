import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.process import Process, this_process
from spp.store.atomic import append_line, read_json, read_lines, write_bytes, write_json, write_text
from spp.temporary import is_temporary, owner_of, remove, temporary

OVERWRITE_FOR_EVER = """
import sys
from pathlib import Path
from spp.store.atomic import write_bytes
while True:
    for byte in (b"a", b"b"):
        write_bytes(Path(sys.argv[1]), byte * 500_000)
"""

APPEND = """
import sys
from pathlib import Path
from spp.store.atomic import append_line
for n in range(100):
    append_line(Path(sys.argv[1]), {"who": sys.argv[2], "n": n})
"""


def test_readers_and_a_kill_never_see_half_a_file(tmp_path, start):
    path = tmp_path / "file"
    write_bytes(path, b"a" * 500_000)
    writer = start(OVERWRITE_FOR_EVER, path)
    seen = set()
    deadline = time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < deadline:
        content = path.read_bytes()
        assert len(content) == 500_000
        assert content.count(content[:1]) == 500_000
        seen.add(content[:1])
    writer.kill()
    writer.wait()
    assert seen == {b"a", b"b"}
    content = path.read_bytes()
    assert content.count(content[:1]) == 500_000


def test_files_get_the_mode_that_the_umask_gives(tmp_path):
    previous = os.umask(0o002)
    try:
        write_text(tmp_path / "file", "shared with the group")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o664


def test_what_json_cannot_hold_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "file", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"a": object()})
    assert read_json(tmp_path / "file") == {"a": 1}
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "folder" / "more").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        write_text(tmp_path / "folder", "a file cannot replace a folder that holds something")
    assert os.listdir(tmp_path) == ["folder"]


def test_an_empty_folder_makes_way_for_a_file(tmp_path):
    for write in (write_json, append_line):
        (tmp_path / "file").mkdir()
        write(tmp_path / "file", {"a": 1})
        assert read_lines(tmp_path / "file")[0]["a"] == 1
        (tmp_path / "file").unlink()


@pytest.mark.parametrize("content", ["", "{", '{"a": ', "[1]", "\xff"])
def test_read_json_takes_only_whole_objects(tmp_path, content):
    (tmp_path / "file").write_bytes(content.encode("latin-1"))
    assert read_json(tmp_path / "file") is None
    assert read_json(tmp_path / "missing") is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text()), min_size=1), st.data())
def test_torn_line_costs_itself_and_no_other(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    for row in rows:
        append_line(path, row)
    whole = path.read_bytes()
    torn_at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:torn_at])
    append_line(path, {"after": "the crash"})
    # A line is there if all of it but the newline was written.
    ends = [sum(len(json.dumps(row)) + 1 for row in rows[: i + 1]) - 1 for i in range(len(rows))]
    kept = [row for row, end in zip(rows, ends, strict=True) if end <= torn_at]
    assert read_lines(path) == [*kept, {"after": "the crash"}]


def test_lines_of_several_processes_do_not_mix(tmp_path, start):
    path = tmp_path / "rows.jsonl"
    writers = [start(APPEND, path, who) for who in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    rows = read_lines(path)
    for who in range(4):
        assert [row["n"] for row in rows if row["who"] == str(who)] == list(range(100))


def test_last_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_lines(path, last=3) == []
    for n in range(100):
        append_line(path, {"n": n, "text": "x" * (n % 90)})
    assert read_lines(path, last=20) == [{"n": n, "text": "x" * (n % 90)} for n in range(80, 100)]
    assert len(read_lines(path)) == 100


def test_temporary_names_tell_their_process(tmp_path):
    name = temporary(tmp_path).name
    assert is_temporary(name)
    assert owner_of(name) == this_process()
    assert not is_temporary("artifacts")
    assert owner_of(".tmp-rubbish") is None
    other = Process("a-host-with-dashes", "0123abcd", 17, 99)
    assert owner_of(f".tmp-{other.tag}-cafe") == other


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_never_written(tmp_path, number):
    write_json(tmp_path / "file", {"a": 1})
    append_line(tmp_path / "rows", {"a": 1})
    for write in (write_json, append_line):
        with pytest.raises(ValueError, match=r"^(file|rows): .*; allowed: finite numbers; [^\n]*$"):
            write(tmp_path / ("file" if write is write_json else "rows"), {"a": [number]})
    assert read_json(tmp_path / "file") == {"a": 1}
    assert read_lines(tmp_path / "rows") == [{"a": 1}]
    assert sorted(os.listdir(tmp_path)) == ["file", "rows"]


@pytest.mark.parametrize("content", ['{"a": NaN}', '{"a": -Infinity}', "[" * 200_000, '{"a":' * 200_000])
def test_what_is_no_json_or_deeper_than_any_is_not_read(tmp_path, content):
    (tmp_path / "file").write_text(content)
    assert read_json(tmp_path / "file") is None
    assert read_lines(tmp_path / "file") == []


def test_a_folder_in_the_place_of_a_file_is_no_file(tmp_path):
    assert read_json(tmp_path) is None
    assert read_lines(tmp_path) == []
    remove(tmp_path / "none")
    (tmp_path / "folder" / "more").mkdir(parents=True)
    remove(tmp_path / "folder")
    (tmp_path / "file").touch()
    remove(tmp_path / "file" / "below")
    remove(tmp_path / "file")
    assert os.listdir(tmp_path) == []


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.integers() | st.text() | st.lists(st.floats(allow_nan=False, allow_infinity=False)),
        max_size=4,
    ),
    st.data(),
)
def test_a_flipped_bit_of_a_json_file_is_noticed_or_changes_nothing(tmp_path_factory, value, data):
    value.pop("sha256", None)
    path = tmp_path_factory.mktemp("json") / "file"
    write_json(path, value)
    assert read_json(path) == value
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    read = read_json(path)
    # A flip in the name of the digest leaves the content as it was.
    assert read is None or {name: read.get(name) for name in value} == value
