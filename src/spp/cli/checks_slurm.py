"""What a SLURM site has: its commands, its controller, and the settings that decide what happens to stages."""

import re
import shutil
from collections.abc import Iterator, Mapping

from spp.cli.checks import Finding, Verdict, answer_of

NEEDED = ("sbatch", "srun", "squeue", "scontrol", "scancel")

_SMALL_ARRAY = 1001
_SHORT_GRACE_S = 60
_AREA = "slurm"


def slurm_site() -> Iterator[Finding]:
    """Everything about the site, as far as it answers; none of it is needed for cluster=debug and cluster=local."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if len(absent) == len(NEEDED):
        remedy = "cluster=debug and cluster=local work; for cluster=slurm go to a login node"
        yield Finding(_AREA, "commands", Verdict.NOTE, "none on PATH", remedy)
        return
    if absent:
        remedy = "ask the site: cluster=slurm needs all of them"
        yield Finding(_AREA, "commands", Verdict.NOTE, f"{', '.join(absent)} not on PATH", remedy)
        return
    code, version = answer_of(["sbatch", "--version"])
    yield Finding(_AREA, "commands", Verdict.OK, version if code == 0 else "on PATH")
    code, ping = answer_of(["scontrol", "ping"])
    if code != 0 or "is UP" not in ping:
        remedy = "cluster=slurm cannot be used now; check SLURM_CONF, or ask the site"
        yield Finding(_AREA, "controller", Verdict.NOTE, _last_line(ping), remedy)
        return
    yield Finding(_AREA, "controller", Verdict.OK, _last_line(ping))
    yield _accounting()
    _, text = answer_of(["scontrol", "show", "config"])
    config = parse_config(text)
    yield from limits(config)
    yield from requeueing(config)
    _, text = answer_of(["scontrol", "show", "partition", "--oneliner"])
    partitions = [parse_partition(line) for line in text.splitlines() if line.startswith("PartitionName=")]
    yield from preemption(config, partitions)
    for partition in partitions:
        yield describe_partition(partition)


def parse_config(text: str) -> dict[str, str]:
    """The settings of `scontrol show config` by name."""
    rows = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in rows}


def parse_partition(line: str) -> dict[str, str]:
    """The fields of a line of `scontrol show partition --oneliner`."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def limits(config: Mapping[str, str]) -> Iterator[Finding]:
    """How much may be submitted at once."""
    size = _number(config.get("MaxArraySize"))
    if size == 0:
        yield Finding(_AREA, "MaxArraySize", Verdict.NOTE, "0: no job arrays", "each stage becomes a job of its own")
    elif size is not None:
        remedy = "larger sweeps become several arrays; the site may raise it" if size <= _SMALL_ARRAY else ""
        yield Finding(_AREA, "MaxArraySize", Verdict.OK, str(size), remedy)
    jobs = _number(config.get("MaxJobCount"))
    if jobs is not None:
        yield Finding(_AREA, "MaxJobCount", Verdict.OK, f"{jobs:,} for everybody; each task of an array counts")


def requeueing(config: Mapping[str, str]) -> Iterator[Finding]:
    """Whether jobs start again, how long they may take to stop, how long they are remembered."""
    if "JobRequeue" in config:
        requeues = config["JobRequeue"] == "1"
        remedy = "" if requeues else "spp asks for --requeue itself; the site may still refuse it"
        yield Finding(_AREA, "JobRequeue", Verdict.OK if requeues else Verdict.NOTE, config["JobRequeue"], remedy)
    for name, least_s, risk in (
        ("KillWait", 10, "a stage that gets SIGTERM has no time to save"),
        ("MinJobAge", 60, "states of ended jobs come from accounting, or are not known"),
    ):
        seconds = _number(config.get(name))
        if seconds is not None:
            short = seconds < least_s
            found = f"{seconds} s"
            yield Finding(_AREA, name, Verdict.NOTE if short else Verdict.OK, found, risk if short else "")


def preemption(config: Mapping[str, str], partitions: list[dict[str, str]]) -> Iterator[Finding]:
    """Whether running stages may be pushed aside, and whether they are told in time to save."""
    if config.get("PreemptType", "preempt/none").endswith("none"):
        yield Finding(_AREA, "preemption", Verdict.OK, "none: what runs is left alone")
        return
    modes = {config.get("PreemptMode", "OFF"), *(partition.get("PreemptMode", "OFF") for partition in partitions)}
    modes -= {"OFF", "GANG"}
    found = f"{config['PreemptType'].removeprefix('preempt/')}, {' and '.join(sorted(modes)) or 'OFF'}"
    if any("CANCEL" in mode for mode in modes):
        remedy = "with CANCEL a preempted stage ends; `spp retry` goes on from its checkpoint"
        yield Finding(_AREA, "preemption", Verdict.NOTE, found, remedy)
    else:
        yield Finding(_AREA, "preemption", Verdict.OK, found)
    # The same switch, by its name before and since SLURM 23.02.
    told = "preempt_send_user_signal" in config.get("SlurmctldParameters", "") or "send_user_signal" in config.get(
        "PreemptParameters", ""
    )
    remedy = "ask the site for send_user_signal, or lower cluster.checkpoint_minutes: work since the last one is redone"
    what = "a preempted stage is told to save first" if told else "a preempted stage gets SIGTERM only"
    yield Finding(_AREA, "send_user_signal", Verdict.OK if told else Verdict.NOTE, what, "" if told else remedy)
    for partition in partitions:
        grace = _number(partition.get("GraceTime"))
        if partition.get("PreemptMode", "OFF") != "OFF" and grace is not None and grace < _SHORT_GRACE_S:
            remedy = "too short for a checkpoint of a large model; lower cluster.checkpoint_minutes"
            yield Finding(_AREA, f"GraceTime {partition['PartitionName']}", Verdict.NOTE, f"{grace} s", remedy)


def describe_partition(partition: Mapping[str, str]) -> Finding:
    """A partition in one line: state, nodes, CPUs, GPUs, longest time."""
    default = ", the default" if partition.get("Default") == "YES" else ""
    tres = partition.get("TRES", "")
    gpus = re.search(r"gres/gpu=(\d+)", tres)
    parts = [f"{partition.get('TotalNodes', '?')} nodes", f"{partition.get('TotalCPUs', '?')} CPUs"]
    parts += [f"{gpus[1]} GPUs"] if gpus else ["no GPUs listed"]
    parts += [f"up to {partition.get('MaxTime', '?')}"]
    is_up = partition.get("State", "UP") == "UP"
    remedy = "" if is_up else "choose another by cluster.resources.default.partition=NAME"
    found = f"{', '.join(parts)}{'' if is_up else ', ' + partition['State']}"
    verdict = Verdict.OK if is_up else Verdict.NOTE
    return Finding(_AREA, f"partition {partition['PartitionName']}{default}", verdict, found, remedy)


def _accounting() -> Finding:
    code, text = answer_of(["sacct", "-n", "-X", "-P", "-o", "JobID"])
    if code == 0:
        return Finding(_AREA, "accounting", Verdict.OK, "sacct answers")
    remedy = "works without; why a job of yesterday ended is then not known"
    return Finding(_AREA, "accounting", Verdict.NOTE, _last_line(text), remedy)


def _number(text: str | None) -> int | None:
    """The number that a setting begins with, such as `30 sec`."""
    match = re.match(r"\d+", text or "")
    return int(match[0]) if match else None


def _last_line(text: str) -> str:
    """The line of a command's complaint that says most: SLURM's come from low to high."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no answer")
