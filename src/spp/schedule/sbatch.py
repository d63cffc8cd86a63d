"""One sbatch call, through submitit."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spp.plan.cluster import ClusterConfig, ResourcesConfig
from spp.schedule import queue
from spp.schedule.batches import array_text
from spp.schedule.queue import Unreachable, find_by_name, is_away
from spp.store.claim import CLUSTER_VARIABLE
from spp.store.snapshot import checked_command

_TENDER_MINUTES = 30
_DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own default."""

# A rank that fails ends all: on a GPU the others would wait for it until a time-out. One that has done its part does
# not: some sites end what is left soon after the first task, but the first rank has to measure and write.
_SRUN_ARGS = ["--kill-on-bad-exit=1", "--wait=0"]

# A node finds its pickle under the id of its job. The id is not known before the submission, and whoever submits
# may be killed before it can put the pickle there, so the job does it. submitit stops at a torn save of its own.
# Since 22.05 srun has to be told the cores of a task again; on a site that binds tasks each would have one.
_SETUP = """\
spp_job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
spp_job=${{spp_job:-$SLURM_JOB_ID}}
rm -f {folder}/"$spp_job"_*.save_tmp
[ -e {folder}/"$spp_job"_submitted.pkl ] || ln -sf {pickle} {folder}/"$spp_job"_submitted.pkl
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"""

_STAND_IN = Path("/spp-folder-of-the-job")


def submit_batch(
    function: Callable[[], Any],
    *,
    folder: Path,
    name: str,
    indices: Sequence[int],
    resources: ResourcesConfig,
    cluster: ClusterConfig,
    dependency: str | None,
    begin_min: float,
    code: Path | None,
    trusted: str = "user",
    lane: str | None = None,
) -> str:
    """Submit a job, or an array if there are several indices; all its tasks call `function`. Returns the id.

    `lane` is the comment by which later jobs find this one, to wait for it (`spp.schedule.lanes`).

    Raises:
        ValueError: if sbatch refuses; one line.
        Unreachable: if the controller gives no answer.
    """
    import submitit
    from submitit.core.utils import DelayedSubmission

    folder.mkdir(parents=True, exist_ok=True)
    pickle = folder / "submitted.pkl"
    delayed = DelayedSubmission(function)
    delayed.set_timeout(resources.timeout_min, cluster.max_timeouts)
    delayed.dump(pickle)
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=cluster.max_timeouts)
    setup = [_SETUP.format(folder=shlex.quote(str(folder.absolute())), pickle=pickle.name)]
    setup += _code_lines(code, trusted)
    options: dict[str, Any] = {"requeue": True}
    if cluster.clusters is not None:
        options["clusters"] = cluster.clusters
        setup.append(f"export {CLUSTER_VARIABLE}={cluster.clusters}")
    if lane is not None:
        # One that waits for what will never come would keep its lane for ever.
        options |= {"comment": lane, "kill-on-invalid-dep": "yes"}
    if len(indices) > 1:
        limit = "" if cluster.max_parallel is None else f"%{cluster.max_parallel}"
        options["array"] = array_text(indices) + limit
        # submitit names the files of an array by this; the indices are those of the option above.
        executor.parameters["map_count"] = len(indices)
    if dependency is not None:
        options["dependency"] = dependency
    if begin_min > 0:
        options["begin"] = f"now+{round(begin_min * 60)}"
    executor.update_parameters(
        job_name=name,
        time=resources.timeout_min,
        nodes=resources.num_nodes,
        ntasks_per_node=resources.num_tasks_per_node,
        cpus_per_task=resources.cpus_per_task,
        signal_delay_s=cluster.signal_delay_s,
        setup=[*setup, *resources.setup],
        srun_args=_SRUN_ARGS,
        additional_parameters={**options, **{key.replace("_", "-"): v for key, v in resources.sbatch.items()}},
        **_given(resources),
    )
    script = folder / "submission.sh"
    command = executor._submitit_command_str
    executor.folder = _STAND_IN  # submitit takes what looks like a pattern in the folder's own name for one
    text = re.sub(
        rf"{_STAND_IN}(/\S+)",
        lambda name: shlex.quote(f"{_as_pattern(folder.absolute())}{name[1]}"),
        executor._make_submission_file_text(command, ""),
    )
    # Sites that keep a list of these keys refuse one that is not on it.
    script.write_text(text.replace("#SBATCH --wckey=submitit\n", ""))
    return _sbatch(["sbatch", str(script)], name, cluster.clusters or "")


def submit_tender(
    command: Sequence[str],
    *,
    folder: Path,
    name: str,
    resources: ResourcesConfig,
    cluster: str,
    jobs: Sequence[str],
    code: Path | None,
    trusted: str = "user",
) -> str:
    """Submit a small job that runs a command once one of these jobs has failed, and that vanishes if none does.

    Returns its id. Raises as `submit_batch` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.sh"
    script.write_text(
        "\n".join(["#!/bin/bash", *_code_lines(code, trusted), *resources.setup, shlex.join(command), ""])
    )
    options = {
        "job-name": name,
        "dependency": "?".join(f"afternotok:{queue.number(job)}" for job in jobs),
        "kill-on-invalid-dep": "yes",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": 1,
        "time": _TENDER_MINUTES,
        "output": f"{_as_pattern(folder)}/%j.log",
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "clusters": cluster or None,
    }
    words = [f"--{option}={value}" for option, value in options.items() if value is not None]
    return _sbatch(["sbatch", "--requeue", *words, str(script)], name, cluster)


def max_array_size(cluster: str = "") -> int:
    """The limit of a cluster on job arrays; SLURM's default if the controller does not tell."""
    words = ["scontrol", *([f"--clusters={cluster}"] if cluster else []), "show", "config"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _DEFAULT_MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else _DEFAULT_MAX_ARRAY_SIZE


def require_commands() -> None:
    """Raises ValueError where SLURM's commands are missing."""
    for command in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(command) is None:
            raise ValueError(
                f"cluster: 'slurm' is not allowed here: {command} is not on PATH; allowed: debug, local; "
                "log in to the cluster, or use cluster=local"
            )


def _as_pattern(folder: Path) -> str:
    """A folder in the pattern of a file's name, in which SLURM puts numbers for %j and its like."""
    return str(folder).replace("%", "%%")


def _code_lines(code: Path | None, trusted: str) -> list[str]:
    """So that a job runs the code in `code`, whatever is in the folder that it was submitted from."""
    if code is None:
        return []
    folder = code.absolute()
    return [
        # Before anything of it is imported; a job that is requeued comes by here again.
        f"{shlex.join(checked_command(folder, trusted, []))} || exit 1",
        f"export PYTHONPATH={shlex.quote(str(folder))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1",
    ]


def _given(resources: ResourcesConfig) -> dict[str, Any]:
    """What the user has set; the site decides about the rest."""
    given: dict[str, Any] = {name: getattr(resources, name) for name in ("partition", "account", "qos", "constraint")}
    # Sites without GPUs refuse even a request for none.
    given["gpus_per_node"] = resources.gpus_per_node or None
    given["mem"] = None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}M"
    return {name: value for name, value in given.items() if value is not None}


def _sbatch(command: list[str], name: str, cluster: str) -> str:
    since = time.time()
    deadline = time.monotonic() + queue.PATIENCE_SECONDS
    pause = 1.0
    while True:
        with _clean_environment():
            answer = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"job (\d+)", answer.stdout)
        if answer.returncode == 0 and found:
            return queue.at(found[1], cluster)
        problem = " ".join((answer.stderr or answer.stdout).split()).removeprefix("sbatch: error: ")
        if not is_away(problem):
            raise ValueError(
                f"cluster: sbatch refused {name}: {problem}; allowed: what the site offers (sinfo, spp doctor); "
                "change cluster.resources"
            )
        if time.monotonic() > deadline:
            raise Unreachable(f"sbatch: {problem}")
        time.sleep(pause)
        pause = min(2 * pause, 10.0)
        # An answer that was lost on its way does not mean that the job was.
        existing = find_by_name([name], since, cluster=cluster)
        if name in existing:
            return existing[name]


@contextlib.contextmanager
def _clean_environment() -> Iterator[None]:
    """Without what a job would inherit from the job that submits it."""
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env(extra_names=[key for key in os.environ if key.startswith(("PMI_", "PMIX_"))]):
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


def tender_command(root: Path, sweep: str, trusted: str) -> list[str]:
    """What the tender runs."""
    words = [f"paths.store={root.absolute()}", f"store.trust={trusted}"]
    return [sys.executable, "-m", "spp.cli.main", "retry", sweep, "--automatic", *words]
