"""watch in real terminals and pipes, beside processes that change the store."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

from spp.cli import follow as follow_module
from spp.cli.main import main
from spp.cli.sweeps import noted_runner
from spp.store.claim import claim


def start_watch(store, *options, **popen):
    command = [
        sys.executable,
        "-m",
        "spp.cli.main",
        "watch",
        "--interval",
        "0.1",
        *options,
        f"paths.store={store.root}",
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **popen)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_a_terminal_a_line_whenever_something_changes(chain, sweep, finish, tmp_path):
    store, name = sweep
    dense, update, *_ = chain.stages.values()
    with noted_runner(store, name, "local"), open(tmp_path / "out", "wb") as out:
        process = start_watch(store, stdout=out)
        lines = lambda: (tmp_path / "out").read_text().splitlines()  # noqa: E731
        until(lambda: len(lines()) == 1)
        with claim(store, dense.kind, dense.key):
            until(lambda: len(lines()) == 2)
        time.sleep(0.5)
        finish(store, dense)
        until(lambda: "1/4 done" in lines()[-1])
        store.fail(update.kind, update.key, "Traceback\nValueError: it broke")
        assert process.wait(60) == 1
    assert "0/4 done, 4 queued  (dense 0/1, update 0/1, finetune 0/2)" in lines()[0]
    assert "0/4 done, 1 running, 3 queued" in lines()[1]
    assert f"failed: update (path) {update.key[:8]}: ValueError: it broke" in lines()[-1]
    assert "2 blocked" in lines()[-1]
    assert len(lines()) <= 5


def test_json_lines_tell_what_changed(chain, sweep, finish):
    store, name = sweep
    with (
        noted_runner(store, name, "local"),
        start_watch(store, "--json", stdout=subprocess.PIPE, text=True) as process,
    ):
        first = json.loads(process.stdout.readline())
        assert [row["state"] for row in first["changed"]] == ["queued"] * 4
        for stage in chain.stages.values():
            finish(store, stage)
        rest = [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0
    assert rest[-1]["settled"]
    assert rest[-1]["ok"]
    states = {row["key"]: row["state"] for line in (first, *rest) for row in line["changed"]}
    assert states == dict.fromkeys(chain.stages, "done")
    assert sum(len(line["changed"]) for line in rest) == 4


def test_in_a_terminal_a_table_that_fits_it(chain, sweep, finish):
    store, _ = sweep
    for stage in list(chain.stages.values())[:-1]:
        finish(store, stage)
    last = list(chain.stages.values())[-1]
    store.fail(last.kind, last.key, "ValueError: it broke")
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    process = start_watch(store, stdout=follower, env=environment)
    os.close(follower)
    output = b""
    # The leader's end of a closed terminal reads as an error.
    while chunk := _read(leader):
        output += chunk
    os.close(leader)
    assert process.wait(60) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert "━" in text
    assert "ValueError: it broke" in text
    assert all(len(line.rstrip("\r")) <= 100 for line in text.split("\n"))


def _read(leader):
    try:
        return os.read(leader, 65536)
    except OSError:
        return b""


def test_a_sweep_that_nobody_carries_on_is_left(sweep, capsys, start):
    store, name = sweep
    code = (
        "import sys; from spp.cli.sweeps import *; noted_runner(Store(sys.argv[1]), sys.argv[2], 'local').__enter__()"
    )
    assert start(code + "; import os; os._exit(1)", store.root, name).wait(60) == 1
    assert main(["watch", f"paths.store={store.root}"]) == 1
    assert "0/4 done, 4 queued" in capsys.readouterr().out
    assert main(["status", f"paths.store={store.root}"]) == 0
    assert f"go on with: spp retry {name}" in capsys.readouterr().out


CLAIMER = """
import sys
from spp.store.claim import claim
from spp.store.store import Store
with claim(Store(sys.argv[1]), sys.argv[2], sys.argv[3]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_what_a_job_may_retry_is_waited_for_a_while(chain, sweep, finish, start, monkeypatch, capsys):
    store, name = sweep
    store.write_plan(name, chain, {"name": "slurm", "num_retries": 2})
    dense = next(iter(chain.stages.values()))
    worker = start(CLAIMER, store.root, dense.kind, dense.key)
    worker.stdout.readline()
    worker.kill()
    worker.wait()
    monkeypatch.setattr(follow_module, "PATIENCE_SECONDS", 0.5)
    began = time.monotonic()
    assert not follow_module.follow(store, name, 0.1)
    assert time.monotonic() - began >= 0.5
    assert "1 lost" in capsys.readouterr().out
    # With the retry the sweep goes on, and the wait pays off.
    monkeypatch.setattr(follow_module, "PATIENCE_SECONDS", 60)
    timer = threading.Timer(0.5, lambda: [finish(store, stage) for stage in chain.stages.values()])
    timer.start()
    assert follow_module.follow(store, name, 0.1)
    timer.join()


@pytest.mark.parametrize("interval", ["0", "-1", "inf", "soon"])
def test_an_interval_must_be_one(interval, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["watch", "--interval", interval])
    assert caught.value.code == 2
    assert "--interval" in capsys.readouterr().err
