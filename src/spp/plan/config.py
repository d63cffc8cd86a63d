"""What a user may set beside the recipes, one dataclass per concept; tasks, models, data and methods bring their own.

The dataclasses hold values only; whatever turns them into torch objects lives in stages.
A field that does not change a result (paths, workers, devices) is in `RuntimeConfig` and never enters a key.
"""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, later, require
from spp.plan.numbers import parse_size

LOGGER_MODES = ("offline", "online", "disabled")
MAX_PROCESSES = 256
"""More threads or loading processes of one stage than any machine has cores: a mistake that would exhaust it."""
JOINT = "joint"
TOWERS = (JOINT, "vision", "text")
BUDGET_KINDS = ("macs", "params", "units")
BUDGET_FORMS = ("free", "heads", "deployable", "uniform")
SNAPVIT_REPAIRS = ("snapvit_prune", "snapvit_inference")
REPAIR_KINDS = ("full", "second", *SNAPVIT_REPAIRS, "none")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(Config):
    """The sizes wanted: one member of the family for each value."""

    kind: str
    """What is counted: macs, params or units."""
    values: list[Any]
    """Fractions of the dense model's total (0.5, 50%) or absolute sizes (2.6G, 15.7M)."""
    multiple_of: int = later(1, neutral=1)
    """What the widths of every member's heads and MLPs are rounded up to, within the budget; 8 suits processors."""
    towers: str = later(JOINT, neutral=JOINT)
    """Of a model of two towers which one is pruned, and its size meant: vision or text; joint: both together."""
    form: str = later("free", neutral="free")
    """Shapes of every member: free, heads (whole heads or none), deployable (whole attentions or none) or uniform (as
    many whole heads and as wide MLPs in all layers: stock code); model.per_head=true tells heads apart."""

    def __post_init__(self) -> None:
        require(self.kind in BUDGET_KINDS, "kind", self.kind, ", ".join(BUDGET_KINDS), "use macs")
        require(self.towers in TOWERS, "towers", self.towers, ", ".join(TOWERS), "use joint")
        require(len(self.values) > 0, "values", self.values, "at least one size", "use [0.5]")
        require(self.form in BUDGET_FORMS, "form", self.form, ", ".join(BUDGET_FORMS), "use free")
        require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "1 or more", "use 8")
        sizes = [parse_size(value, "values") for value in self.values]
        object.__setattr__(self, "values", sorted(set(sizes), reverse=True))


@dataclass(frozen=True, kw_only=True)
class RepairConfig(Config):
    """The repair of every member after the cut, in closed form and without labels."""

    kind: str
    """full (second maps, queries and keys), second (second maps alone), snapvit_prune or snapvit_inference (the two
    sweeps of SnapViT as released, which begin with the dense weights) or none."""
    num_samples: int = 256
    """Training samples that it looks at, drawn by the seed; all where there are fewer."""
    batch_size: int = 64
    """Samples that go through the networks at a time; results differ in their last bits."""

    def __post_init__(self) -> None:
        require(self.kind in REPAIR_KINDS, "kind", self.kind, ", ".join(REPAIR_KINDS), "use full")
        for name in ("num_samples", "batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "1 or more", "leave it out")

    @property
    def is_on(self) -> bool:
        """Whether there is a repair at all."""
        return self.kind != "none"

    @property
    def starts_from_dense(self) -> bool:
        """Whether it takes the weights of the dense network, those that leave, too, and so none that were trained."""
        return self.kind in SNAPVIT_REPAIRS


@dataclass(frozen=True, kw_only=True)
class LoggerConfig(Config):
    """The W&B mirror of the record."""

    mode: str
    """offline, online or disabled."""
    project: str
    """Project of the runs."""
    entity: str | None = None
    """User or team; null: the account's own."""

    def __post_init__(self) -> None:
        require(self.mode in LOGGER_MODES, "mode", self.mode, ", ".join(LOGGER_MODES), "use offline")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(Config):
    """Where and with what a stage runs; never part of a key."""

    data: dict[str, Any] = field(default_factory=dict)
    """How spp.data finds the files of the data set; plan does not look into it."""
    model: dict[str, Any] = field(default_factory=dict)
    """How spp.models finds the files of the network; plan does not look into it."""
    teacher: dict[str, Any] = field(default_factory=dict)
    """How spp.models finds the files of a teacher that is not the dense network."""
    task: dict[str, Any] = field(default_factory=dict)
    """How spp.tasks finds its files; plan does not look into it."""
    num_workers: int = 0
    """Processes that load data."""
    num_threads: int = 1
    """Threads of the process on the CPU; sums differ in their last bits between numbers of threads."""
    measure_batch_size: int = 64
    """Samples per step where a network is measured; sums differ in their last bits between numbers of samples."""
    accelerator: str = "auto"
    """Lightning accelerator: auto, cpu or gpu."""
    devices: int = 1
    """Processes per node that train together, one per device; follows from the cluster's resources."""
    num_nodes: int = 1
    """Nodes that train together; follows from the cluster's resources."""
    checkpoint_minutes: float = 15.0
    """Minutes between two checkpoints."""
    wandb: dict[str, Any] = field(default_factory=dict)
    """Mode, project and entity of the W&B mirror and, written when a sweep is, the point that its run belongs to."""

    def __post_init__(self) -> None:
        workers, threads = self.num_workers, self.num_threads
        require(0 <= workers <= MAX_PROCESSES, "num_workers", workers, f"0 to {MAX_PROCESSES}", "use 0")
        require(1 <= threads <= MAX_PROCESSES, "num_threads", threads, f"1 to {MAX_PROCESSES}", "use 1")
        require(self.devices >= 1, "devices", self.devices, "1 or more", "use 1")
        require(self.num_nodes >= 1, "num_nodes", self.num_nodes, "1 or more", "use 1")
        size = self.measure_batch_size
        require(size >= 1, "measure_batch_size", size, "1 or more", "use 64")
        minutes = self.checkpoint_minutes
        require(minutes > 0, "checkpoint_minutes", minutes, "a positive number of minutes", "use 15")
        require(
            self.accelerator in ("auto", "cpu", "gpu"), "accelerator", self.accelerator, "auto, cpu, gpu", "use auto"
        )

    @property
    def num_processes(self) -> int:
        """Processes that train together, over all nodes."""
        return self.devices * self.num_nodes
