#!/usr/bin/env -S python3 -SE
"""sbatch, squeue, sacct, scancel, scontrol and srun in one program that truly runs the jobs, on this machine.

It is called under those names (links beside this file) and follows what slurmctld 22.05 does; test_fakes.py holds it
against the real one. Its folder and its settings come from the environment:
  FAKE_SLURM            folder of the queue, must exist; `calls` in it lists all calls, a file `down` there takes the
                        controller away, and without `state.json` the runner ends its jobs and itself
  FAKE_SLURM_RUN        0: jobs are queued and never run (to count and to measure)
  FAKE_SLURM_SLOTS      jobs at a time [2]
  FAKE_SLURM_SACCT      0: accounting is disabled
  FAKE_SLURM_ARRAY      MaxArraySize [1001]
  FAKE_SLURM_MINUTE_S   seconds that a minute of a time limit lasts [60]
  FAKE_SLURM_REQUEUE_S  seconds until a requeued job may start again [1]
  FAKE_SLURM_KILL_S     seconds between SIGTERM and SIGKILL [2]
  FAKE_SLURM/NAME       a folder: another cluster of this name, with a queue of its own, for --clusters=NAME
  FAKE_SLURM_AGE_S      seconds until an ended job is forgotten (MinJobAge) [300]
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_jobs import ENV, ROOT, SHORT, expand, fail, find, is_remembered, queue, read_dependency, setting
from fake_runner import fill, kill, number_of, requeue, runner, wake

VALUES = {
    "sbatch": [
        "array -a", "dependency -d", "job-name -J", "output -o", "error -e", "time -t", "signal", "comment", "begin -b",
        "nodes -N", "ntasks -n", "ntasks-per-node", "cpus-per-task -c", "mem", "mem-per-cpu", "gpus-per-node", "gres",
        "partition -p", "account -A", "qos -q", "constraint -C", "open-mode", "kill-on-invalid-dep", "wrap", "export",
        "chdir -D", "nodelist -w", "exclude -x", "wckey", "gpus-per-task", "mem-per-gpu", "nice", "reservation",
        "clusters -M",
    ],
    "srun": ["ntasks -n", "nodes -N", "output -o", "error -e", "cpus-per-task -c", "ntasks-per-node", "wait -W"],
    "squeue": [
        "clusters -M", "jobs -j", "name -n", "states -t", "user -u", "format -o", "partition -p", "sort -S",
    ],
    "sacct": ["clusters -M", "jobs -j", "format -o", "starttime -S", "endtime -E", "name", "user -u", "state -s"],
    "scancel": ["clusters -M", "signal -s", "name -n", "jobname", "state -t", "user -u"],
}  # fmt: skip
FLAGS = {
    "sbatch": ["hold -H", "parsable", "no-requeue", "requeue", "quiet -Q", "exclusive"],
    "srun": ["unbuffered -u", "kill-on-bad-exit -K", "label -l", "overlap"],
    "squeue": ["noheader -h", "array -r", "me"],
    "sacct": ["allocations -X", "noheader -n", "parsable2 -P", "duplicates -D", "allusers -a"],
    "scancel": ["quiet -Q", "me", "batch -b", "full -f", "verbose -v"],
}


def parse(command, words):
    """The words as a namespace; what the real command knows and this one does not is refused."""
    parser = argparse.ArgumentParser(command, allow_abbrev=False, add_help=False)
    for names in VALUES[command]:
        long, *short = names.split()
        parser.add_argument(f"--{long}", *short)
    for names in FLAGS[command]:
        long, *short = names.split()
        parser.add_argument(f"--{long}", *short, action="store_true")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser.parse_args([re.sub("^(--exclusive|--kill-on-bad-exit)=.*", r"\1", word) for word in words])


# -- sbatch


def sbatch(words):
    options = parse("sbatch", words)
    text = f"#!/bin/sh\n{options.wrap}\n" if options.wrap else Path(options.rest[0]).read_text()
    header = [shlex.split(line[7:], comments=True) for line in text.splitlines() if line.startswith("#SBATCH")]
    options = vars(parse("sbatch", [*(word for line in header for word in line), *words]))
    options["job_name"] = options["job_name"] or ("wrap" if options["wrap"] else Path(options["rest"][0]).name)
    ranges, _, limit = (options["array"] or "").partition("%")
    indices = list(expand(ranges)) if ranges else [None]
    if ranges and max(indices) >= setting("ARRAY", 1001):
        fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    now = time.time()
    with queue() as state:
        base = state["next"]
        state["next"] += len(indices)
        names = [str(base) if index is None else f"{base}_{index}" for index in indices]
        job = {"options": options, "limit": int(limit or 0), "tasks": names, "cwd": options["chdir"] or os.getcwd()}
        # The last task of an array has the array's own number.
        raws = [*range(base + 1, base + len(indices)), base]
        for name, index, raw in zip(names, indices, raws, strict=True):
            state["tasks"][name] = {
                "base": base, "index": index, "raw": raw, "state": "PENDING", "reason": "None", "restarts": 0,
                "dep": read_dependency(state, options["dependency"], index) if options["dependency"] else {"terms": []},
                "held": options["hold"], "begin": begin_of(options["begin"], now), "submit": now, "start": 0, "end": 0,
                "pid": None, "steps": [], "code": 0, "signal": 0, "ending": None, "told": False,
            }  # fmt: skip
        state["jobs"][str(base)] = job
        (ROOT / f"{base}.sh").write_text(text)
        (ROOT / f"{base}.env").write_text(json.dumps(dict(ENV)))
    where = f" on cluster {options['clusters']}" if options["clusters"] else ""
    print(base if options["parsable"] else f"Submitted batch job {base}{where}")
    wake()


def begin_of(text, now):
    if not text:
        return 0
    if match := re.fullmatch(r"now\+(\d+)(\w*)", text):
        units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
        return now + int(match[1]) * units[match[2][:1]]
    return now if text == "now" else datetime.datetime.fromisoformat(text).timestamp()


# -- srun


def srun(words):
    """Runs the command once per task of the job, each in a group of its own that signals to steps reach."""
    options = parse("srun", words)
    num_tasks, per_node = int(options.ntasks or ENV["SLURM_NTASKS"]), int(ENV["SLURM_NTASKS_PER_NODE"])
    processes = []
    for rank in range(num_tasks):
        node = rank // per_node
        env = {"PROCID": rank, "LOCALID": rank % per_node, "NODEID": node, "NTASKS": num_tasks, "STEP_ID": 0}
        env = ENV | {f"SLURM_{key}": str(value) for key, value in env.items()}
        env |= {"SLURM_STEP_NUM_TASKS": str(num_tasks), "SLURMD_NODENAME": f"fake{node + 1}"}
        with contextlib.ExitStack() as files:
            out = files.enter_context(open(fill(options.output, env), "a")) if options.output else None
            err = files.enter_context(open(fill(options.error, env), "a")) if options.error else out
            processes.append(subprocess.Popen(options.rest, env=env, stdout=out, stderr=err, start_new_session=True))
    # Told to end, srun waits for its tasks.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with queue() as state:
        for task in state["tasks"].values():
            if task["raw"] == int(ENV["SLURM_JOB_ID"]):
                task["steps"] += [process.pid for process in processes]
    while None in [process.poll() for process in processes]:
        if options.kill_on_bad_exit and any(process.returncode for process in processes):
            kill([process.pid for process in processes if process.returncode is None], signal.SIGKILL)
        time.sleep(0.02)
    return max(128 - process.returncode if process.returncode < 0 else process.returncode for process in processes)


# -- what reads and steers the queue


def clock(seconds):
    days, rest = divmod(int(seconds), 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text


def stamp(time_s):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time_s)) if time_s else "Unknown"


def row_of(state, name):
    """All that squeue and sacct can be asked for."""
    task = state["tasks"][name]
    options = state["jobs"][str(task["base"])]["options"]
    word = "COMPLETING" if task["ending"] else task["state"]
    reason = task["reason"]
    if word == "PENDING" and reason != "DependencyNeverSatisfied":
        if task["held"]:
            reason = "JobHeldUser"
        elif task["dep"]["terms"]:
            reason = "Dependency"
        elif task["begin"] > time.time() and reason != "NonZeroExitCode":
            reason = "BeginTime"
    terms = [f"{kind}:{target}({verdict})" for kind, target, verdict in task["dep"]["terms"] if verdict != "met"]
    node = "fake1" if task["start"] and word != "PENDING" else ""
    elapsed = clock((task["end"] or time.time()) - task["start"] if node else 0)
    return {
        "i": name, "A": task["raw"], "F": task["base"], "K": "N/A" if task["index"] is None else task["index"],
        "T": word, "t": SHORT.get(word, "CG"), "r": reason, "R": node or f"({reason})", "N": node, "u": user(),
        "E": ("?" if task["dep"].get("any") else ",").join(terms) or "(null)", "j": options["job_name"],
        "k": options["comment"] or "(null)", "M": elapsed, "l": options["time"] or "UNLIMITED",
        "S": stamp(task["start"]), "P": options["partition"] or "debug",
        "D": options["nodes"] or 1, "C": options["cpus_per_task"] or 1,
        "a": options["account"] or "(null)", "q": options["qos"] or "normal", "V": stamp(task["submit"]),
        "jobid": name, "jobidraw": task["raw"], "jobname": options["job_name"], "state": word, "elapsed": elapsed,
        "exitcode": f"{task['code']}:{task['signal']}", "nodelist": node or "None assigned", "reason": reason,
        "start": stamp(task["start"]), "end": stamp(task["end"]), "submit": stamp(task["submit"]), "user": user(),
        "reqmem": options["mem"] or "", "timelimit": options["time"] or "UNLIMITED", "restarts": task["restarts"],
        "comment": options["comment"] or "", "partition": options["partition"] or "debug",
    }  # fmt: skip


def user():
    return ENV.get("USER") or str(os.getuid())


def squeue(words):
    options = parse("squeue", words)
    form = options.format or "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
    wanted = (options.states or "PENDING,RUNNING,COMPLETING").upper().split(",")
    with queue() as state:
        names = list(state["tasks"] if options.jobs is None else find(state, options.jobs))
        names = [name for name in names if is_remembered(state["tasks"][name])]
        if options.jobs is not None and not names:
            fail("slurm_load_jobs error: Invalid job id specified")
        rows = [row_of(state, name) for name in names]
    if options.clusters:
        print(f"CLUSTER: {options.clusters}")
    if not options.noheader:
        print(re.sub(r"%\.?\d*(\w)", r"\1", form))
    for row in rows:
        if wanted != ["ALL"] and row["T"] not in wanted and row["t"] not in wanted:
            continue
        if options.name is None or row["j"] in options.name.split(","):
            print(re.sub(r"%\.?(\d*)(\w)", lambda part, row=row: str(row[part[2]])[: int(part[1] or 9999)], form))


def sacct(words):
    options = parse("sacct", words)
    if not setting("SACCT", 1):
        fail("Slurm accounting storage is disabled")
    fields = (options.format or "JobID,JobName,State,ExitCode").split(",")
    if not options.noheader:
        print("|".join(fields))
    with queue() as state:
        for name in state["tasks"] if options.jobs is None else find(state, options.jobs):
            row = row_of(state, name)
            if row["state"] == "CANCELLED":
                row["state"] = f"CANCELLED by {os.getuid()}"
            if options.name is None or row["jobname"] in options.name.split(","):
                print("|".join(str(row[field.lower()]) for field in fields))


def scancel(words):
    options = parse("scancel", words)
    with queue() as state:
        for name in list(find(state, ",".join(options.rest)) if options.rest else state["tasks"]):
            task, job = state["tasks"][name], state["jobs"][str(state["tasks"][name]["base"])]
            if options.name and job["options"]["job_name"] not in options.name.split(","):
                continue
            if options.state and options.state.upper() not in (task["state"], SHORT[task["state"]]):
                continue
            if options.signal:
                groups = [task["pid"]] * (options.batch or options.full) + task["steps"] * (not options.batch)
                kill([group for group in groups if group], number_of(options.signal))
            elif task["pid"]:
                task["ending"] = "CANCELLED"
            elif task["state"] == "PENDING":
                task.update(state="CANCELLED", end=time.time())


def scontrol(words):
    verb, *rest = words
    if verb == "ping":
        print("Slurmctld(primary) at fake is UP")
    elif words[:2] == ["show", "config"]:
        print(f"MaxArraySize            = {setting('ARRAY', 1001):.0f}\nMaxJobCount             = 10000")
        print("JobRequeue              = 1\nKillWait                = 2 sec\nMinJobAge               = 300 sec")
        print("PreemptMode             = OFF\nSLURM_VERSION           = 22.05.8")
    elif words[:2] == ["show", "hostnames"]:
        print(*ENV["SLURM_JOB_NODELIST"].split(",") if len(words) < 3 else words[2].split(","), sep="\n")
    elif verb in ("requeue", "release", "hold", "update") or words[:2] == ["show", "job"]:
        steer(verb, rest)
    else:
        fail(f"invalid keyword: {verb}")
    if verb in ("requeue", "release", "update"):
        wake()


def steer(verb, words):
    fields = dict(word.split("=", 1) for word in words if "=" in word)
    with queue() as state:
        names = list(find(state, fields["JobId"] if verb == "update" else ",".join(words[verb == "show" :])))
        if "jobname" in fields:
            names = [name for name in state["tasks"] if row_of(state, name)["j"] == fields["jobname"]]
        if not names:
            fail("slurm_update error: Invalid job id specified")
        for name in names:
            task = state["tasks"][name]
            if verb == "show":
                row = row_of(state, name)
                print(f"JobId={row['A']} JobName={row['j']}\n   JobState={row['T']} Reason={row['r']}")
            elif verb == "requeue":
                ask_requeue(state, task, words[0])
            elif verb in ("release", "hold"):
                task["held"] = verb == "hold"
            else:
                change(state, task, fields)


def ask_requeue(state, task, name):
    if state["jobs"][str(task["base"])]["options"]["no_requeue"]:
        fail(f"Requested operation is presently disabled for job {name}")
    if task["pid"]:
        task["ending"] = "REQUEUE"
    elif task["state"] == "PENDING":
        fail(f"Job is pending execution for job {name}")
    else:
        requeue(task)


def change(state, task, fields):
    for key, value in fields.items():
        if key == "Dependency":
            terms = read_dependency(state, value, task["index"]) if value else {"terms": []}
            task.update(dep=terms, reason="None")
        elif key == "StartTime":
            task["begin"] = 0
        elif key == "TimeLimit":
            state["jobs"][str(task["base"])]["options"]["time"] = value
        elif key != "JobId":
            fail(f"Update of this parameter is not supported: {key}={value}")


def go_to_cluster(name, words):
    """Become the command of another cluster where one is named, in the words or in the script of sbatch."""
    script = Path(words[-1]).read_text() if name == "sbatch" and words and Path(words[-1]).is_file() else ""
    named = re.search(r"--clusters=(\S+)", " ".join([*words, script]))
    if named is None or ROOT.name == named[1]:
        return
    if not (ROOT / named[1]).is_dir():
        fail(f"{name}: error: No cluster '{named[1]}' known by database.")
    os.environ["FAKE_SLURM"] = str(ROOT / named[1])
    os.execv(sys.executable, [sys.executable, "-SE", sys.argv[0], *words])


def main():
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if words[:1] == ["runner"]:
        return runner(words)
    go_to_cluster(name, words)
    if not ROOT.is_dir():
        fail(f"{name}: error: FAKE_SLURM names no folder")
    with open(ROOT / "calls", "a") as calls:
        calls.write(shlex.join([name, *words]) + "\n")
    if words[:1] in (["--version"], ["-V"]):
        return print("slurm 22.05.8")
    if (ROOT / "down").exists() and name != "srun":
        fail(f"{name}: error: Unable to contact slurm controller (connect failure)")
    return {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel, "scontrol": scontrol, "srun": srun}[
        name
    ](words)


sys.exit(main())
