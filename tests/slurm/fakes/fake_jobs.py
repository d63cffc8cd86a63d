"""The queue of the fake SLURM: its file, the names of its jobs and what they wait for."""

import contextlib
import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path

ENV = os.environ
ROOT = Path(ENV.get("FAKE_SLURM", "/nonexistent"))
STATE = ROOT / "state.json"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
SHORT = {"PENDING": "PD", "RUNNING": "R", "COMPLETED": "CD", "FAILED": "F", "CANCELLED": "CA", "TIMEOUT": "TO"}


def setting(name, default):
    return float(ENV.get(f"FAKE_SLURM_{name}", default))


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def queue():
    """The jobs, locked; dependencies are settled at every change, so that none sees a parent's past."""
    with open(ROOT / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = STATE.read_text() if STATE.exists() else '{"next": 1, "jobs": {}, "tasks": {}}'
        state = json.loads(before)
        yield state
        settle(state)
        if (after := json.dumps(state)) != before:
            (ROOT / "state.tmp").write_text(after)
            os.replace(ROOT / "state.tmp", STATE)


# -- dependencies


def parents(state, kind, target, index):
    """Names of the tasks that a term waits for, as seen from a task with this index."""
    base = target.partition("_")[0]
    if kind == "aftercorr" and index is not None:
        target = f"{base}_{index}"
        if target not in state["tasks"]:
            target = base
    return list(find(state, target))


def verdict(state, kind, names):
    """met, failed or unfulfilled."""
    tasks = [state["tasks"][name] for name in names]
    if kind == "after":
        return "met" if all(task["start"] for task in tasks) else "unfulfilled"
    if any(task["state"] not in FINAL or task["pid"] for task in tasks):
        return "unfulfilled"
    succeeded = all(task["state"] == "COMPLETED" for task in tasks)
    met = {"afterok": succeeded, "aftercorr": succeeded, "afternotok": not succeeded, "afterany": True}[kind]
    return "met" if met else "failed"


def read_dependency(state, text, index):
    """Terms [kind, target, verdict]; what the controller does not know is dropped without a word."""
    terms = []
    for expression in re.split("[,?]", text):
        kind, *targets = expression.split(":")
        if kind not in ("after", "afterany", "afterok", "afternotok", "aftercorr") or not targets:
            fail("sbatch: error: Batch job submission failed: Job dependency problem")
        for target in targets:
            names = parents(state, kind, target, index)
            if any(is_remembered(state["tasks"][name]) for name in names):
                terms.append([kind, target, "unfulfilled"])
    return {"any": "?" in text, "terms": terms}


def settle(state):
    known = {}
    for task in state["tasks"].values():
        terms = task["dep"]["terms"]
        if task["state"] != "PENDING" or not terms:
            continue
        for term in terms:
            if term[2] == "unfulfilled":
                key = (term[0], term[1], task["index"] if term[0] == "aftercorr" else None)
                if key not in known:
                    known[key] = verdict(state, term[0], parents(state, *key))
                term[2] = known[key]
        verdicts = [term[2] for term in terms]
        if "met" in verdicts and (task["dep"]["any"] or set(verdicts) == {"met"}):
            task["dep"]["terms"] = []
        elif "failed" in verdicts and (not task["dep"]["any"] or set(verdicts) == {"failed"}):
            task["reason"] = "DependencyNeverSatisfied"
            if state["jobs"][str(task["base"])]["options"]["kill_on_invalid_dep"] == "yes":
                task.update(state="CANCELLED", end=time.time())


def is_ready(task):
    return task["state"] == "PENDING" and not task["held"] and not task["dep"]["terms"]


def is_remembered(task):
    return task["state"] not in FINAL or time.time() - task["end"] < setting("AGE_S", 300)


# -- names of jobs: 12, 12_3, 12_[1-3,5], and the raw id of an array task


def expand(ranges):
    for part in ranges.split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def find(state, names):
    for name in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", names):
        base, _, indices = name.partition("_")
        if indices:
            wanted = [f"{base}_{index}" for index in expand(indices.strip("[]"))]
        elif base in state["jobs"]:
            wanted = state["jobs"][base]["tasks"]
        else:
            wanted = [key for key, task in state["tasks"].items() if str(task["raw"]) == base]
        yield from (key for key in wanted if key in state["tasks"])
