"""What a user may set, one dataclass per concept; methods bring their own in spp.methods.

The dataclasses hold values only; whatever turns them into torch objects lives in stages and data.
A field that does not change a result (paths, workers, devices) is in `RuntimeConfig` and never enters a key.
"""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, require
from spp.plan.numbers import parse_size


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    name: str
    """timm name of the architecture, for example deit_small_patch16_224."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, for example {depth: 6, embed_dim: 64}."""
    weights: str = "train"
    """Where the dense weights come from: train, pretrained (timm's), or a checkpoint's path, hashed as sha256:..."""
    per_head: bool = False
    """Mask every head's channels by themselves instead of one mask shared over the heads of a layer."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    name: str
    """Data set: digits, cifar10 or imagefolder."""
    img_size: int
    """Height and width in pixels of the images the model sees."""
    val_fraction: float = 0.1
    """Share of the training images held out to choose weights and settings; the test set never is."""
    split_seed: int = 0
    """Seed of that split; the same for every training seed so that runs stay comparable."""
    num_train: int | None = None
    """Use only the first so many training images (before the split); null uses all."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """Identity of the files, filled in when planning: split sizes and a hash of the manifest."""

    def __post_init__(self) -> None:
        require(self.split_seed >= 0, "split_seed", self.split_seed, "0 or more", "use 0")
        require(self.img_size > 0, "img_size", self.img_size, "a positive number of pixels", "use 224")
        require(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "a number in (0, 1)", "use 0.1")


PRECISIONS = ("32-true", "bf16-mixed")


def _check_common(config: "RecipeConfig | UpdateConfig") -> None:
    share = "a number in [0, 1)"
    require(config.batch_size > 0, "batch_size", config.batch_size, "1 or more", "use 64")
    require(0 <= config.drop_path < 1, "drop_path", config.drop_path, share, "use 0.1")
    require(config.input_noise >= 0, "input_noise", config.input_noise, "0 or more", "use 0")
    require(0 <= config.label_smoothing < 1, "label_smoothing", config.label_smoothing, share, "use 0.1")
    require(config.precision in PRECISIONS, "precision", config.precision, ", ".join(PRECISIONS), "use 32-true")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """How weights are trained; dense, prune and finetune share it."""

    epochs: int
    """Passes over the training images; 0 trains nothing."""
    batch_size: int
    """Images per step over all devices together."""
    lr: float
    """Peak learning rate of AdamW, used as it stands (not scaled by the batch size)."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    weight_decay: float = 0.05
    """AdamW weight decay; biases, norms and embeddings are exempt, as in timm."""
    label_smoothing: float = 0.0
    """Mass taken from the true class."""
    mixup: float = 0.0
    """Mixup alpha; 0 switches it off."""
    cutmix: float = 0.0
    """Cutmix alpha; 0 switches it off."""
    mixup_prob: float = 1.0
    """Chance that a batch is mixed at all."""
    mixup_switch_prob: float = 0.5
    """Chance of cutmix when both are on."""
    drop_path: float = 0.0
    """Stochastic depth rate of the deepest block."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise added to the normalised training images."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is kept; null: no average."""
    clip_grad: float | None = None
    """Largest gradient norm; null: no clipping."""
    precision: str = "32-true"
    """Lightning precision, for example 32-true or bf16-mixed."""
    select: str = "best"
    """Weights kept at the end: best (highest validation accuracy) or last."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Image transforms, see spp.data.images.module: crop, hflip, rand_augment, color_jitter, random_erasing, ..."""

    def __post_init__(self) -> None:
        _check_common(self)
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more", "use 0 to skip the training")
        require(self.lr > 0, "lr", self.lr, "a positive number", "use 1e-3")
        require(self.min_lr >= 0, "min_lr", self.min_lr, "0 or more", "use 1e-5")
        warmup, most = self.warmup_epochs, self.epochs
        require(0 <= warmup <= most or most == 0, "warmup_epochs", warmup, f"0 to the {most} epochs", "use 0")
        for name in ("weight_decay", "mixup", "cutmix"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 0")
        for name in ("mixup_prob", "mixup_switch_prob"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]", "use 0.5")
        can_mix = not (self.mixup or self.cutmix) or self.batch_size % 2 == 0
        require(can_mix, "batch_size", self.batch_size, "an even number where mixup or cutmix is on", "use 64")
        decay, norm = self.ema_decay, self.clip_grad
        require(decay is None or 0 < decay < 1, "ema_decay", decay, "null or a number in (0, 1)", "use 0.99")
        require(norm is None or norm > 0, "clip_grad", norm, "null or a number above 0", "use 1")
        require(self.select in ("best", "last"), "select", self.select, "best, last", "use best")


@dataclass(frozen=True, kw_only=True)
class UpdateConfig(Config):
    """The mask search: weights frozen, one pass of the dynamics that yields the path."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step over all devices together."""
    calibration_batches: int = 20
    """First batches, which only measure the gradient scale at the dense masks (preset priced)."""
    occupancy_interval: int = 10
    """Steps between two samples of the support, the released code's score."""
    drop_path: float = 0.0
    """Stochastic depth rate of the deepest block."""
    label_smoothing: float = 0.0
    """Mass taken from the true class."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise added to the normalised training images."""
    precision: str = "32-true"
    """Lightning precision, for example 32-true or bf16-mixed."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Image transforms, as in RecipeConfig."""

    def __post_init__(self) -> None:
        _check_common(self)
        for name in ("epochs", "calibration_batches", "occupancy_interval"):
            require(getattr(self, name) > 0, name, getattr(self, name), "1 or more", "leave it out")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(RecipeConfig):
    """The search of every method but SPP, in which the weights train or stand still, as the method wants it.

    conf/stage/ gives it the loss, step sizes and precision of `prune`: weights that train in the search are trained as
    those that train in the walk.
    """

    select: str = "last"
    """Always last: the weights belong to the masks that the search ends with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.select == "last", "select", self.select, "last", "leave it out")
        require(self.ema_decay is None, "ema_decay", self.ema_decay, "null: the masks move on too fast", "use null")


PRUNE_SHAPES = ("sine", "cubic", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class PruneConfig(RecipeConfig):
    """The walk from dense to sparse along the path while the weights train; epochs=0 is the released scheme."""

    select: str = "last"
    """Always last: a member has the weights of the moment at which its size was reached."""
    shape: str = "sine"
    """How the size falls with time: sine and cubic fall early, linear evenly, cosine late at first."""
    interval: int = 5
    """Steps between two re-selections of the masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.select == "last", "select", self.select, "last", "leave it out")
        require(self.ema_decay is None, "ema_decay", self.ema_decay, "null: the masks move on too fast", "use null")
        require(self.shape in PRUNE_SHAPES, "shape", self.shape, ", ".join(PRUNE_SHAPES), "use sine")
        require(self.interval > 0, "interval", self.interval, "1 or more", "use 5")


LOGGER_MODES = ("offline", "online", "disabled")
BUDGET_KINDS = ("macs", "params", "units")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(Config):
    """The sizes wanted: one member of the family for each value."""

    kind: str
    """What is counted: macs, params or units."""
    values: list[Any]
    """Fractions of the dense model's total (0.5, 50%) or absolute sizes (2.6G, 15.7M)."""

    def __post_init__(self) -> None:
        require(self.kind in BUDGET_KINDS, "kind", self.kind, ", ".join(BUDGET_KINDS), "use macs")
        require(len(self.values) > 0, "values", self.values, "at least one size", "use [0.5]")
        sizes = [parse_size(value, "values") for value in self.values]
        object.__setattr__(self, "values", sorted(set(sizes), reverse=True))


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

    data_root: str | None = None
    """Folder of the data set; null for an embedded one."""
    weights_file: str | None = None
    """The checkpoint whose hash is in model.weights."""
    download: bool = False
    """Let the data set fetch its files into data_root when they are not there."""
    data_format: str | None = None
    """Form of the files in data_root, for data sets with several; null: found out."""
    data_on_error: str = "fail"
    """What a broken image does: fail, or skip it; the latter is in data.fingerprint, and so in the key."""
    num_workers: int = 0
    """Processes that load data."""
    num_threads: int = 1
    """Threads of the process on the CPU; sums differ in their last bits between numbers of threads."""
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
    cache: str | None = None
    """Folder for small caches such as the manifests of image folders."""

    def __post_init__(self) -> None:
        require(self.num_workers >= 0, "num_workers", self.num_workers, "0 or more", "use 0")
        require(self.num_threads >= 1, "num_threads", self.num_threads, "1 or more", "use 1")
        require(self.devices >= 1, "devices", self.devices, "1 or more", "use 1")
        require(self.num_nodes >= 1, "num_nodes", self.num_nodes, "1 or more", "use 1")
        minutes = self.checkpoint_minutes
        require(minutes > 0, "checkpoint_minutes", minutes, "a positive number of minutes", "use 15")
        require(
            self.accelerator in ("auto", "cpu", "gpu"), "accelerator", self.accelerator, "auto, cpu, gpu", "use auto"
        )

    @property
    def num_processes(self) -> int:
        """Processes that train together, over all nodes."""
        return self.devices * self.num_nodes
