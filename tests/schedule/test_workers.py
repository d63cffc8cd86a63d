"""Workers that a server forks: nothing of one stage reaches the next, and the server itself may fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spp.stages.quick_imports
import spp.stages.serve
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.process import is_alive, process_of
from spp.schedule.events import What
from spp.schedule.local import run_local
from spp.schedule.workers import WorkerServer

# Says what it finds of the state of its process, then changes all of that.
UNTIDY = """
import atexit, gc, os, resource, signal, sys, threading, time, warnings
from spp.store.claim import claim
from spp.store.store import Store

root, kind, key = sys.argv[1:]
store = Store(root)
found = {
    "folder": os.getcwd(),
    "environment": {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
    "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
    "signals": {s.name: str(signal.getsignal(s)) for s in signal.Signals if s.name != "SIGCHLD"},
    "child signal": str(signal.getsignal(signal.SIGCHLD)),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "umask": os.umask(0o022),
    "threads": threading.active_count(),
    "files": len(os.listdir("/proc/self/fd")),
    "input": sys.stdin.read(),
    "tidy": not hasattr(os, "untidy"),
    "filters": warnings.filters[0][0],
    "limit": resource.getrlimit(resource.RLIMIT_CORE),
    "leads": os.getpgid(0) == os.getpid(),
}
with claim(store, kind, key):
    work = store.begin(kind, key)
    (work / "artifact").write_text(key)
    store.finish(kind, key, found)
os.chdir("/")
os.environ["LEFT"] = "behind"
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.umask(0o777)
os.untidy = bytearray(100_000_000)
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
open_files = [open("/dev/null") for _ in range(50)]
gc.disable()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def independent(num_stages, resources=None, **runtime):
    """A plan of stages that need each other not at all."""
    stages = [
        Stage("step", {"name": f"s{n}"}, label=f"s{n}", resources=resources or {}, runtime=runtime)
        for n in range(num_stages)
    ]
    return Plan.merge([Point("all", (), tuple(stages))])


def run(plan, store, workers, **options):
    settings = {"max_parallel": 1, "gpu_ids": (), "observe": lambda event: None, **options}
    return run_local(plan, store, command=workers.command, server=workers.server, **settings)


def summaries(plan, store):
    return [store.summary(stage.kind, key) for key, stage in plan.stages.items()]


def test_a_stage_finds_what_it_would_find_in_a_process_of_its_own(store, make_workers):
    plan = independent(3, {"gpus_per_node": 1})
    assert run(plan, store, make_workers(False, UNTIDY), gpu_ids=["3"]).ok
    fresh = summaries(plan, store)
    shutil.rmtree(store.root)
    workers = make_workers(True, UNTIDY)
    assert run(plan, store, workers, gpu_ids=["3"]).ok
    assert workers.by_command == []
    assert summaries(plan, store) == fresh
    assert fresh[0] == fresh[1] == fresh[2]
    assert (fresh[0]["gpus"], fresh[0]["input"], fresh[0]["tidy"], fresh[0]["leads"]) == ("3", "", True, True)


def test_a_stage_of_several_processes_is_not_forked(store, make_workers):
    single, double = independent(1), independent(1, devices=2)
    workers = make_workers(True)
    assert run(single, store, workers).ok
    assert workers.by_command == []
    shutil.rmtree(store.root)
    assert run(double, store, workers).ok
    assert workers.by_command == list(double.stages)


@pytest.mark.parametrize("argv", [["false"], ["sh", "-c", "echo '{\"ready\": true}'"]], ids=["at once", "when ready"])
def test_where_the_server_fails_every_stage_gets_an_interpreter(plan, store, make_workers, argv):
    workers = make_workers(False)
    outcome = run_local(
        plan, store, command=workers.command, server=argv, max_parallel=2, gpu_ids=(), observe=lambda event: None
    )
    assert outcome.ok
    assert sorted(workers.by_command) == sorted(plan.stages)


def test_a_killed_server_costs_the_stages_that_it_had_started(chains, store, make_workers, key_of, labels):
    plan = chains(update_1={"config": {"spawns": True, "seconds": 60}})
    workers = make_workers(True)
    servers, running = [], []

    def observe(event):
        if event.what is What.DONE and event.stage.label == "update_2":
            running.extend(_two_pids(store))
            servers.append(int(Path(f"/proc/{running[0]}/stat").read_text().rpartition(")")[2].split()[1]))
            os.kill(servers[0], signal.SIGKILL)

    outcome = run(plan, store, workers, observe=observe, max_parallel=2)
    assert labels(plan, outcome.failed) == ["update_1"]
    assert sorted(labels(plan, outcome.done)) == ["dense", "other", "tune_2", "update_2"]
    assert labels(plan, workers.by_command) == ["tune_2"]
    assert "killed by SIGKILL" in store.failure("update", key_of(plan, "update_1"))["error"]
    assert not any(is_alive(process_of(pid)) for pid in running)


def test_code_that_cannot_be_imported_is_told_in_the_log_of_the_stage(store, tmp_path):
    package = tmp_path / "code" / "spp" / "stages"
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        init.write_text("")
    for module in (spp.stages.serve, spp.stages.quick_imports):
        shutil.copy(module.__file__, package)
    (package / "worker.py").write_text("import no_such_module")
    argv = ["env", f"PYTHONPATH={tmp_path / 'code'}", "PYTHONSAFEPATH=1", sys.executable, "-m", "spp.stages.serve"]
    plan = independent(1)
    outcome = run_local(
        plan,
        store,
        command=lambda kind, key: ["false"],
        server=[*argv, str(store.root)],
        max_parallel=1,
        gpu_ids=(),
        observe=lambda event: None,
    )
    (key,) = outcome.failed
    assert "No module named 'no_such_module'" in store.failure("step", key)["traceback"]


ENDINGS = {
    "returns 0": ("return 0", 0),
    "returns 75": ("return 75", 75),
    "exits 143": ("sys.exit(143)", 143),
    "exits with a word": ("sys.exit('a word')", 1),
    "exits": ("sys.exit()", 0),
    "raises": ("raise ValueError('a word')", 1),
    "is interrupted": ("raise KeyboardInterrupt", -signal.SIGINT),
    "is killed": ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
}


@pytest.mark.parametrize(("text", "code"), ENDINGS.values(), ids=ENDINGS.keys())
def test_a_forked_worker_ends_as_python_ends(text, code, tmp_path):
    worker = f"""
import atexit, os, sys, threading, time, types
def main():
    atexit.register(print, "at exit")
    threading.Thread(target=lambda: time.sleep(0.3) or print("thread")).start()
    {text}
"""
    plain = subprocess.run([sys.executable, "-c", f"{worker}\nsys.exit(main())"], capture_output=True, text=True)
    server = WorkerServer(
        [
            sys.executable,
            "-c",
            f"{worker}\nfrom spp.stages import serve\nserve.preload = lambda: None\n"
            "sys.modules['spp.stages.worker'] = types.SimpleNamespace(main=main)\nsys.exit(serve.main())",
            str(tmp_path),
        ]
    )
    try:
        _until(lambda: server.poll() or server.ready)
        log = tmp_path / "log"
        started = server.start("step", "key", log, {})
        _until(lambda: started.poll() is not None)
        assert started.poll() == plain.returncode == code
    finally:
        server.close()
    assert [line for line in log.read_text().splitlines() if line in ("thread", "at exit")] == plain.stdout.split("\n")[
        :-1
    ]
    assert log.read_text().count("a word") == plain.stderr.count("a word")


SCHEDULER = """
import json, sys
from spp.schedule.local import run_local
from spp.store.store import Store
root, server = sys.argv[1:]
store = Store(root)
run_local(
    store.read_plan("sweep"), store, max_parallel=1, gpu_ids=(), command=None, server=json.loads(server),
    observe=lambda event: print(event.what, event.stage.label, flush=True),
)
"""


def test_a_stage_outlives_a_scheduler_that_is_killed_and_the_server_does_not(store, make_workers, start):
    stage = Stage("step", {"name": "s", "seconds": 2, "spawns": True}, label="s")
    store.write_plan("sweep", Plan.merge([Point("all", (), (stage,))]))
    scheduler = start(SCHEDULER, store.root, json.dumps(make_workers(True).server))
    worker, helper = _two_pids(store)
    server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    scheduler.kill()
    scheduler.wait()
    _until(lambda: store.is_done("step", stage.key))
    _until(lambda: not is_alive(process_of(server)))
    os.kill(helper, signal.SIGKILL)


def test_ctrl_c_does_not_wait_for_imports(store, make_workers, start, tmp_path):
    store.write_plan("sweep", independent(1))
    importing = tmp_path / "importing"
    slow = f"import os, time; open({str(importing)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    scheduler = start(SCHEDULER, store.root, json.dumps([sys.executable, "-c", slow]))
    _until(lambda: importing.exists() and importing.read_text())
    scheduler.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert scheduler.wait(30) == -signal.SIGINT
    assert time.monotonic() - began < 10
    _until(lambda: not is_alive(process_of(int(importing.read_text()))))
    assert "started" not in scheduler.stdout.read()


def test_importing_asks_nothing_of_a_gpu():
    """A process that has asked CUDA for anything cannot be forked."""
    code = """
import sys, torch
asked = []
for name in ("is_available", "device_count", "_lazy_init", "current_device", "get_device_name"):
    setattr(torch.cuda, name, lambda *args, name=name: asked.append(name) or 0)
from spp.stages import serve
serve.preload()
assert "spp.stages.worker" in sys.modules
assert asked == [], asked
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _two_pids(store):
    """The ids of a worker and of its helper, once they run."""
    pids = store.root / "pids"
    _until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    return [int(pid) for pid in pids.read_text().split()]


def _until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
