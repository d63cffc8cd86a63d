"""Runs the jobs of the fake SLURM: one process in the background, which ends when nothing can change any more."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_jobs import ROOT, STATE, is_ready, queue, setting, settle


def wake():
    if setting("RUN", 1):
        command = [sys.executable, "-SE", str(Path(__file__).with_name("slurm.py")), "runner"]
        null = subprocess.DEVNULL
        with open(ROOT / "runner.err", "a") as err:
            subprocess.Popen(command, stdin=null, stdout=null, stderr=err, start_new_session=True, cwd="/")


def runner(_):
    """Runs what may run; ends when nothing can change any more without a command."""
    batches, deadlines = {}, {}
    with open(ROOT / "runner.lock", "a") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        while STATE.exists():
            with queue() as state:
                tasks = state["tasks"]
                for name in [name for name, task in tasks.items() if task["pid"]]:
                    watch(state, name, batches, deadlines)
                settle(state)
                start_ready(state, batches)
                if not any(task["pid"] or is_ready(task) for task in tasks.values()):
                    # Let go before the queue is, so that the runner of the next sbatch finds nobody here.
                    fcntl.flock(mine, fcntl.LOCK_UN)
                    return
            time.sleep(0.02)
    for batch in batches.values():
        kill([batch.pid], signal.SIGKILL)


def start_ready(state, batches):
    running = [task for task in state["tasks"].values() if task["pid"]]
    for name, task in state["tasks"].items():
        if not is_ready(task) or task["pid"] or task["begin"] > time.time():
            continue
        limit = state["jobs"][str(task["base"])]["limit"]
        if limit and sum(other["base"] == task["base"] for other in running) >= limit:
            task["reason"] = "JobArrayTaskLimit"
        elif len(running) >= setting("SLOTS", 2):
            task["reason"] = "Resources"
        else:
            try:
                batches[name] = start(state, task)
            except OSError:  # its folder or its output cannot be had
                task.update(state="FAILED", start=time.time(), end=time.time(), code=1)
            running.append(task)


def start(state, task):
    base, job = str(task["base"]), state["jobs"][str(task["base"])]
    options = job["options"]
    num_nodes = int((options["nodes"] or "1").split("-")[0])
    per_node = int(options["ntasks_per_node"] or 1)
    num_tasks = int(options["ntasks"] or num_nodes * per_node)
    hosts = ",".join(f"fake{node + 1}" for node in range(num_nodes))
    env = json.loads((ROOT / f"{base}.env").read_text()) | {
        "SLURM_JOB_ID": task["raw"], "SLURM_JOBID": task["raw"], "SLURM_JOB_NAME": options["job_name"],
        "SLURM_NNODES": num_nodes, "SLURM_JOB_NUM_NODES": num_nodes, "SLURM_NTASKS": num_tasks,
        "SLURM_NTASKS_PER_NODE": per_node, "SLURM_CPUS_PER_TASK": options["cpus_per_task"] or 1, "SLURM_NODEID": 0,
        "SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_JOB_NODELIST": hosts, "SLURM_NODELIST": hosts,
        "SLURMD_NODENAME": "fake1", "SLURM_JOB_PARTITION": options["partition"] or "debug",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    if task["index"] is not None:
        env |= {"SLURM_ARRAY_JOB_ID": base, "SLURM_ARRAY_TASK_ID": task["index"]}
    if task["restarts"]:
        env["SLURM_RESTART_COUNT"] = task["restarts"]
    default = "slurm-%j.out" if task["index"] is None else "slurm-%A_%a.out"
    mode = "a" if options["open_mode"] == "append" or (task["restarts"] and options["open_mode"] != "truncate") else "w"
    path = Path(job["cwd"], fill(options["output"] or default, env))
    error = Path(job["cwd"], fill(options["error"], env)) if options["error"] else None
    with open(path, mode) as out, open(error or path, mode if error else "a") as err:
        batch = subprocess.Popen(
            ["/bin/bash", str(ROOT / f"{base}.sh"), *options["rest"][1:]], stdin=subprocess.DEVNULL, stdout=out,
            stderr=err, start_new_session=True, cwd=job["cwd"], env={key: str(value) for key, value in env.items()},
        )  # fmt: skip
    task.update(state="RUNNING", reason="None", start=time.time(), end=0, pid=batch.pid, steps=[], told=False)
    return batch


def fill(pattern, env):
    values = {"j": "SLURM_JOB_ID", "A": "SLURM_ARRAY_JOB_ID", "a": "SLURM_ARRAY_TASK_ID", "t": "SLURM_PROCID"}
    values |= {"N": "SLURMD_NODENAME", "n": "SLURM_NODEID", "x": "SLURM_JOB_NAME"}
    single = {"A": "SLURM_JOB_ID"} if "SLURM_ARRAY_JOB_ID" not in env else {}
    known = values | single
    return re.sub("%([%jAatNnx])", lambda match: "%" if match[1] == "%" else str(env.get(known[match[1]], 0)), pattern)


def watch(state, name, batches, deadlines):
    """One look at a running task: signal it, end it, take its exit code."""
    task, batch, now = state["tasks"][name], batches[name], time.time()
    options = state["jobs"][str(task["base"])]["options"]
    groups = [task["pid"], *task["steps"]]
    if options["time"] and not task["ending"]:
        end = task["start"] + seconds_of(options["time"])
        what, _, delay = (options["signal"] or "").rpartition("@")
        if what and not task["told"] and now > end - int(delay) * setting("MINUTE_S", 60) / 60:
            task["told"] = True
            kill(groups[:1] if what.startswith("B:") else groups[1:], number_of(what.removeprefix("B:")))
        if now > end:
            task["ending"] = "TIMEOUT"
    if task["ending"] and name not in deadlines:
        deadlines[name] = now + setting("KILL_S", 2)
        kill(groups, signal.SIGCONT, signal.SIGTERM)
    code = batch.poll()
    if code is not None and not task["ending"]:
        kill(task["steps"], signal.SIGKILL)
    elif code is None or any(is_alive(pid) for pid in task["steps"]):
        if now > deadlines.get(name, now):
            kill(groups, signal.SIGKILL)
        return
    deadlines.pop(name, None)
    del batches[name]
    ending = task["ending"]
    task.update(pid=None, steps=[], end=now, code=max(code, 0), signal=max(-code, 0), ending=None)
    if ending == "REQUEUE":
        task["reason"] = "BeginTime"
        requeue(task)
    else:
        task["state"] = ending or ("COMPLETED" if code == 0 else "FAILED")
        failed = "NonZeroExitCode" if code > 0 else "JobLaunchFailure"
        task["reason"] = {"FAILED": failed, "TIMEOUT": "TimeLimit"}.get(task["state"], "None")


def requeue(task):
    task.update(state="PENDING", begin=time.time() + setting("REQUEUE_S", 1), restarts=task["restarts"] + 1)


def kill(groups, *numbers):
    for group in groups:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def number_of(name):
    return int(name) if name.isdigit() else getattr(signal, "SIG" + name.upper().removeprefix("SIG"))


def seconds_of(limit):
    """5, 5:30, 1:00:00 or 1-0 (days-hours), in seconds of a test."""
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return (int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60) * setting("MINUTE_S", 60)
