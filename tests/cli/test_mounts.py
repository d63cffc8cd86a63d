"""Stores on a real file system that is mounted read only, and on one that is full."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from spp.cli.main import main
from spp.store.store import Store

WORDS = ["debug=fast", "logger=off"]
SIZE_KIB = 12288


def mounted(*words):
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mount {' '.join(words[:3])} is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def place(tmp_path):
    """An empty folder to mount something on."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


@pytest.fixture
def read_only(finished, place):
    """The finished sweep where nothing can be written, not even by root."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    mounted("--bind", str(finished[0]), str(place))
    mounted("-o", "remount,bind,ro", str(place))
    with pytest.raises(OSError, match="Read-only"):
        (place / "x").touch()
    return place, finished[1]


@pytest.fixture
def full(finished, place):
    """The finished sweep on a disk without room for another byte."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    mounted("-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(place))
    shutil.copytree(finished[0], place, dirs_exist_ok=True, symlinks=True)
    with open(place / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    assert os.statvfs(place).f_bavail == 0
    return place, finished[1]


def content_of(root):
    return {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", *WORDS], "0 done, 9 cached, 0 failed, 0 blocked"),
        (["run", "cluster=local", *WORDS], "0 done, 9 cached, 0 failed, 0 blocked"),
        (["plan", *WORDS], "9 done"),
        (["status"], "done"),
        (["verify"], "9 finished stages read, 0 damaged"),
        (["report", "family", "--format", "md"], "family"),
    ],
)
def test_what_is_done_just_works_where_nothing_can_be_written(words, said, read_only, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root, _ = read_only
    before = content_of(root)
    assert main([*words, f"paths.store={root}"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert content_of(root) == before


@pytest.mark.parametrize(
    "words",
    [["run", "seed=1", *WORDS], ["run", "cluster=local", "seed=1", *WORDS], ["verify", "--repair"], ["retry", "SWEEP"]],
)
def test_what_has_to_be_written_ends_in_one_line(words, read_only, capsys):
    root, sweep = read_only
    code = main([*(sweep if word == "SWEEP" else word for word in words), f"paths.store={root}"])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) in ((2, 1), (0, 0)), said
    assert code == 0 or "(Read-only file system)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", *WORDS], "0 done, 9 cached, 0 failed, 0 blocked"),
        (["status"], "done"),
        (["verify"], "9 finished stages read, 0 damaged"),
    ],
)
def test_what_is_done_just_works_on_a_full_disk(words, said, full, capsys):
    root, _ = full
    assert main([*words, f"paths.store={root}"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words",
    [
        ["run", "seed=1", *WORDS],
        ["run", "cluster=local", "seed=1", *WORDS],
        ["report", "family", "--format", "md"],
    ],
)
def test_a_full_disk_ends_in_one_line_and_leaves_nothing_behind(words, full, capsys):
    root, sweep = full
    before = set(content_of(root))
    assert main([*words, f"paths.store={root}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("spp: ")
    assert said.count("\n") == 1
    assert "(No space left on device)" in said
    left = [path for path in set(content_of(root)) - before if path.is_file() and path.stat().st_size]
    assert left == []
    os.unlink(root / "filler")
    assert Store(root).read_plan(sweep).stages


@pytest.mark.slow
def test_a_disk_that_fills_up_while_a_stage_works_loses_nothing(full, capsys):
    """Room for what a run writes at first, and not for its first artifacts."""
    root, _ = full
    os.truncate(root / "filler", (root / "filler").stat().st_size - 64 * 1024)
    words = ["run", "seed=1", *WORDS, f"paths.store={root}"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert "No space left" in told.err + told.out
    os.unlink(root / "filler")
    assert main(words) == 0
    assert "0 failed" in capsys.readouterr().out
