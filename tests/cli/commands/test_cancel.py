"""cancel ends the process that carries a sweep out; jobs of SLURM have tests of their own."""

import json
import subprocess
import sys
import time

import pytest

from spp.cli.commands.cancel import end_processes
from spp.cli.main import main
from spp.cli.sweeps import noted_runner
from spp.process import Process, this_process
from spp.store.store import Store

RUNNER = """
import dataclasses, json, signal, sys
from spp.cli.sweeps import noted_runner
from spp.process import this_process
from spp.store.store import Store
if len(sys.argv) > 3:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with noted_runner(Store(sys.argv[1]), sys.argv[2], "local"):
    print(json.dumps(dataclasses.asdict(this_process())), flush=True)
    sys.stdin.readline()
"""


def test_the_process_ends_and_says_so(sweep, start, capsys):
    store, name = sweep
    process = start(RUNNER, store.root, name)
    pid = json.loads(process.stdout.readline())["pid"]
    assert main(["cancel", name, "--json", f"paths.store={store.root}"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["processes_ended"], result["jobs_ended"]) == ([pid], [])
    assert process.wait(60) == 143
    # Who has cancelled wants to see that it is cancelled, until somebody goes on.
    assert main(["status", "--json", f"paths.store={store.root}"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "cancelled"
    assert {stage["state"] for stage in status["stages"]} == {"cancelled"}
    assert main(["watch", f"paths.store={store.root}"]) == 1
    assert "4 cancelled" in capsys.readouterr().out
    with noted_runner(store, name, "local"):
        assert main(["status", "--json", f"paths.store={store.root}"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "queued"
    assert main(["cancel", name, f"paths.store={store.root}"]) == 0
    assert "nothing of it was queued or running" in capsys.readouterr().out


def test_a_process_that_stays_is_named(sweep, start):
    store, name = sweep
    process = start(RUNNER, store.root, name, "stubborn")
    stubborn = Process(**json.loads(process.stdout.readline()))
    assert end_processes([stubborn], grace_s=0.5) == []
    assert process.poll() is None


def test_a_process_with_the_same_number_but_another_start_is_left_alone(sweep, start, capsys):
    store, name = sweep
    other = start("import sys; print('up', flush=True); sys.stdin.readline()")
    other.stdout.readline()
    me = this_process()
    runner = {"host": me.host, "machine": me.machine, "pid": other.pid, "start": 1}
    store.append_job(name, {"runner": runner, "cluster": "local"})
    assert main(["cancel", name, f"paths.store={store.root}"]) == 0
    time.sleep(0.2)
    assert other.poll() is None
    assert "nothing of it" in capsys.readouterr().out


def test_a_process_of_another_machine_is_named_and_left(sweep, capsys):
    store, name = sweep
    runner = {"host": "far-away", "machine": "0", "pid": 4242, "start": 1}
    store.append_job(name, {"runner": runner, "cluster": "local"})
    assert main(["cancel", name, f"paths.store={store.root}"]) == 0
    assert "process 4242 on far-away" in capsys.readouterr().out


@pytest.mark.slow
def test_cancel_and_retry_of_a_real_run(tmp_path, capsys):
    words = ["run", "debug=fast", "logger=off", "cluster=local", "dense.epochs=300", f"paths.store={tmp_path}"]
    process = subprocess.Popen([sys.executable, "-m", "spp.cli.main", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("stages/dense/*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    store = Store(tmp_path)
    name = store.latest() or ""
    assert main(["cancel", name, f"paths.store={tmp_path}"]) == 0
    assert process.wait(60) == 143
    assert f"go on with: spp retry {name}" in capsys.readouterr().out
    dense = next(iter(store.read_plan(name).stages.values()))
    assert not store.is_done("dense", dense.key)
    assert store.failure("dense", dense.key) is None
