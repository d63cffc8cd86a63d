"""Where stages run and what each asks for there; none of it enters a key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spp.config import Config, require

CLUSTERS = ("debug", "local", "slurm")
DEFAULT = "default"
"""The entry of `ClusterConfig.resources` that every kind of stage starts from."""

_NOT_FOR_USERS = (
    "array", "clusters", "dependency", "error", "job-name", "no-requeue", "open-mode", "output", "parsable", "quiet",
    "requeue", "signal", "test-only", "wait",
)  # fmt: skip
"""Options of sbatch by which jobs are ordered, found again and continued."""


@dataclass(frozen=True, kw_only=True)
class ResourcesConfig(Config):
    """What one stage asks for; local reads gpus_per_node and tasks_per_node, debug nothing, slurm all."""

    num_nodes: int = 1
    """Machines that train together."""
    gpus_per_node: int | None = None
    """GPUs on each of them; null: one where this machine has any and accelerator is not cpu, else none."""
    gpu_name: str | None = None
    """What these GPUs are, such as A100, for estimates alone; null: as in the records of the store, else A100."""
    tasks_per_node: int | None = None
    """Processes that train together on each node; null: one per GPU, or one."""
    cpus_per_task: int = 1
    """CPU cores of each process."""
    mem_gb: float | None = None
    """Memory on each node; null: the site's default."""
    timeout_min: int = 60
    """Time limit of one attempt; a stage goes on from its checkpoint in the next one."""
    partition: str | None = None
    """Partition; null: the site's default."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that the nodes must have."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the work, such as `module load cuda`."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch without their dashes, such as {exclusive: true}."""

    def __post_init__(self) -> None:
        for name in ("num_nodes", "cpus_per_task", "timeout_min"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more", "use 1")
        gpus, tasks = self.gpus_per_node, self.tasks_per_node
        require(gpus is None or gpus >= 0, "gpus_per_node", gpus, "null, or 0 or more", "use 1")
        require(tasks is None or tasks >= 1, "tasks_per_node", tasks, "null, or 1 or more", "leave it out")
        fits = gpus is None or tasks is None or gpus in (0, tasks)
        require(fits, "tasks_per_node", tasks, f"null, or one per GPU: {gpus}", "leave it out")
        require(self.mem_gb is None or self.mem_gb > 0, "mem_gb", self.mem_gb, "null or a positive number", "use 8")
        for name in self.sbatch:
            is_free = str(name).replace("_", "-") not in _NOT_FOR_USERS
            require(is_free, "sbatch", name, "options that spp does not set itself", f"leave {name} out")

    @property
    def num_tasks_per_node(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or self.gpus_per_node or 1


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Config):
    """Where stages run."""

    name: str
    """debug (in this process), local (a queue of processes) or slurm (submitted, and left to it)."""
    max_parallel: int | None = None
    """Stages at a time: processes (local, null: 1), tasks of one job array (slurm, null: as many as there are)."""
    gpus: list[Any] | None = None
    """Ids of the GPUs to share out (local); null: all that are visible."""
    resources: dict[str, Any] = field(default_factory=dict)
    """What stages ask for, by kind; `default` holds for all kinds, the others change single fields of it."""
    checkpoint_minutes: float = 15.0
    """Minutes between two checkpoints of a running stage."""
    signal_delay_s: int = 180
    """Seconds before the time limit at which a stage is told to save (slurm); SLURM may be 60 s early or late."""
    max_timeouts: int = 100
    """How often a stage may run into its time limit and go on from its checkpoint (slurm)."""
    num_retries: int = 2
    """How often what looks like the machine's fault is submitted again without anybody awake (slurm)."""
    backoff_min: float = 5.0
    """Minutes before the first of these retries; doubled each time (slurm)."""
    growth: float = 1.5
    """Factor on memory after running out of it, and on time after a time limit without progress (slurm)."""
    max_array_size: int | None = None
    """Largest number of tasks in a job array; null: what the site says (slurm)."""
    clusters: str | None = None
    """SLURM cluster to submit to, at a site with several (sbatch --clusters); null: that of this machine (slurm)."""
    max_jobs: int | None = None
    """Jobs at a time over all sweeps of the user (slurm); null: as many as the site allows."""
    allow_failure: list[Any] = field(default_factory=list)
    """Kinds of stages, such as finetune, that may fail without the sweep counting as failed."""
    wait: bool = False
    """Stay until everything has ended instead of returning after the submission (slurm)."""

    def __post_init__(self) -> None:
        require(self.name in CLUSTERS, "name", self.name, ", ".join(CLUSTERS), "use debug")
        for name in ("max_parallel", "max_array_size", "max_jobs"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "null, or 1 or more", "use 2")
        for name in ("checkpoint_minutes", "backoff_min", "num_retries", "max_timeouts"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 1")
        require(self.signal_delay_s >= 1, "signal_delay_s", self.signal_delay_s, "1 or more", "use 180")
        is_name = self.clusters is None or re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", self.clusters) is not None
        require(is_name, "clusters", self.clusters, "the name of one cluster", "see sacctmgr show clusters")
        require(self.growth >= 1, "growth", self.growth, "1 or more", "use 1.5")
        for kind, values in self.resources.items():
            require(isinstance(values, Mapping), f"resources.{kind}", values, "fields of resources", "name them")
        for kind in (DEFAULT, *self.resources):
            limit_s = 60 * self._merged(kind).timeout_min
            fits = self.name != "slurm" or self.signal_delay_s < limit_s
            allowed = f"less than the time limit of {kind}, {limit_s}"
            require(fits, "signal_delay_s", self.signal_delay_s, allowed, f"use {limit_s // 4}")

    def resources_of(self, kind: str, default_gpus: int = 0) -> ResourcesConfig:
        """What a stage of this kind asks for; `default_gpus` stands for a number of GPUs that is left open."""
        merged = self._merged(kind)
        return replace(merged, gpus_per_node=default_gpus) if merged.gpus_per_node is None else merged

    def _merged(self, kind: str) -> ResourcesConfig:
        values = {**self.resources.get(DEFAULT, {}), **self.resources.get(kind, {})}
        return ResourcesConfig.read(values, f"resources.{kind if kind in self.resources else DEFAULT}")
