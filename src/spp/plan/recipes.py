"""Recipes: how a stage goes through the data, one dataclass for each kind of recipe.

A default is stated here and nowhere else; conf/recipe/ sets what differs from data set to data set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

from spp.config import Config, later, require

PRECISIONS = ("32-true", "bf16-mixed")
DISTILL_KINDS = ("soft", "hard")
PRUNE_SHAPES = ("sine", "cubic", "linear", "cosine")


@dataclass(frozen=True, kw_only=True)
class PassConfig(Config):
    """What every pass over the training samples has, whatever it trains."""

    epochs: int
    """Passes over the training samples; 0 trains nothing."""
    batch_size: int
    """Samples per step over all devices together."""
    drop_path: float = 0.0
    """Stochastic depth rate of the deepest block."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise added to the normalised inputs."""
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
    precision: str = "32-true"
    """Lightning precision, for example 32-true or bf16-mixed."""
    augment: dict[str, Any] = field(default_factory=dict)
    """How training inputs are changed; the data set says what it knows."""
    distill_weight: float = 0.0
    """Weight, from 0 to 1, of the loss against the outputs of the dense network; 0: no distillation."""
    distill_temperature: float = 1.0
    """Temperature of the outputs that are compared; distill_kind=soft."""
    distill_kind: str = "soft"
    """soft (the whole output of the teacher) or hard (its decision)."""
    distill_hidden: float = later(0.0, neutral=0.0)
    """Weight of the hidden states beside the outputs in what is compared with the teacher: of the mean squares of the
    differences, one for each state, their sum."""
    distill_attention: float = later(0.0, neutral=0.0)
    """Weight of the attention weights in it, likewise: of the mean squares, one for each attention, their sum."""

    def __post_init__(self) -> None:
        share = "a number in [0, 1)"
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more", "use 0 to skip the training")
        require(self.batch_size > 0, "batch_size", self.batch_size, "1 or more", "use 64")
        require(0 <= self.drop_path < 1, "drop_path", self.drop_path, share, "use 0.1")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, share, "use 0.1")
        for name in ("input_noise", "mixup", "cutmix"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more", "use 0")
        for name in ("mixup_prob", "mixup_switch_prob", "distill_weight"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]", "use 0.5")
        can_mix = not (self.mixup or self.cutmix) or self.batch_size % 2 == 0
        require(can_mix, "batch_size", self.batch_size, "an even number where mixup or cutmix is on", "use 64")
        require(self.precision in PRECISIONS, "precision", self.precision, ", ".join(PRECISIONS), "use 32-true")
        temperature, kind = self.distill_temperature, self.distill_kind
        require(temperature > 0, "distill_temperature", temperature, "a positive number", "use 1")
        require(kind in DISTILL_KINDS, "distill_kind", kind, ", ".join(DISTILL_KINDS), "use soft")
        for name in ("distill_hidden", "distill_attention"):
            value = getattr(self, name)
            require(value >= 0, name, value, "0 or more", "use 1")
            require(value == 0 or self.distills, name, value, "0 without a distill_weight", "set both")

    @property
    def is_empty(self) -> bool:
        """Whether no step is taken."""
        return self.epochs == 0

    def num_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole pass, one for each batch, over data of so many batches."""
        return self.epochs * steps_per_epoch

    @property
    def distills(self) -> bool:
        """Whether the dense network teaches; a stage with such a recipe has it as its input `dense`."""
        return self.distill_weight > 0

    def with_own_targets(self) -> Self:
        """The same pass with targets as the data have them: neither smoothed nor mixed.

        For scores of units: a loss that asks for less confidence would score them by what they do to that.
        """
        return replace(self, label_smoothing=0, mixup=0, cutmix=0)


@dataclass(frozen=True, kw_only=True)
class SearchPassConfig(PassConfig):
    """What every search has: it may be asked for by its number of steps, which is what decides its result."""

    steps: int | None = later(None, neutral=None)
    """Steps, one for each batch, in place of epochs, which then are 0; null: as many as the epochs have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, epochs = self.steps, self.epochs
        require(steps is None or steps > 0, "steps", steps, "null, or 1 or more", "use 200")
        require(steps is None or epochs == 0, "epochs", epochs, f"0 beside steps={steps}", "use one of the two")

    @property
    def is_empty(self) -> bool:
        return self.epochs == 0 and self.steps is None

    def num_steps(self, steps_per_epoch: int) -> int:
        return super().num_steps(steps_per_epoch) if self.steps is None else self.steps


@dataclass(frozen=True, kw_only=True)
class UpdateConfig(SearchPassConfig):
    """The mask search of SPP: weights frozen, one pass of the dynamics that yields the path."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.is_empty, "epochs", self.epochs, "1 or more, or 0 with steps", "use 1")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(PassConfig):
    """How weights are trained; dense, search, prune and finetune share it."""

    lr: float
    """Peak learning rate of AdamW, used as it stands (not scaled by the batch size)."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    weight_decay: float = 0.05
    """AdamW weight decay; biases, norms and embeddings are exempt, as in timm."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is kept; null: no average."""
    clip_grad: float | None = None
    """Largest gradient norm; null: no clipping."""
    select: str = "best"
    """Weights kept at the end: best (by the task's headline metric on the validation split) or last."""
    momentum_weight: float = later(0.0, neutral=0.0)
    """Of retrieval, where weights train: weight, from 0 to 1, of what a moving average of the network thinks of each
    match, beside the data; 0: there is no such average."""
    momentum_decay: float = later(0.995, neutral=0.995)
    """Decay of that average, per step."""
    momentum_queue: int = later(0, neutral=0)
    """Pairs of earlier batches, as that average embeds them, that a sample is compared with beside its batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lr > 0, "lr", self.lr, "a positive number", "use 1e-3")
        require(self.min_lr >= 0, "min_lr", self.min_lr, "0 or more", "use 1e-5")
        warmup, most = self.warmup_epochs, self.epochs
        require(0 <= warmup <= most or most == 0, "warmup_epochs", warmup, f"0 to the {most} epochs", "use 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more", "use 0")
        decay, norm = self.ema_decay, self.clip_grad
        require(decay is None or 0 < decay < 1, "ema_decay", decay, "null or a number in (0, 1)", "use 0.99")
        require(norm is None or norm > 0, "clip_grad", norm, "null or a number above 0", "use 1")
        require(self.select in ("best", "last"), "select", self.select, "best, last", "use best")
        self._check_momentum()

    def _check_momentum(self) -> None:
        weight, decay, queue = self.momentum_weight, self.momentum_decay, self.momentum_queue
        require(0 <= weight <= 1, "momentum_weight", weight, "a number in [0, 1]", "use 0.4")
        require(0 <= decay < 1, "momentum_decay", decay, "a number in [0, 1)", "use 0.995")
        require(queue >= 0, "momentum_queue", queue, "0 or more", "use 4096")
        require(queue == 0 or weight > 0, "momentum_queue", queue, "0 without a momentum_weight", "set both")


@dataclass(frozen=True, kw_only=True)
class DenseConfig(RecipeConfig):
    """How the dense network is trained: from nothing, or on from given weights with a head for other classes."""

    head_epochs: int = later(0, neutral=0)
    """Passes before `epochs` in which a new head trains and the rest stands still, with a cosine from lr of its own."""
    layer_decay: float | None = later(None, neutral=None)
    """Factor by which the learning rate falls from each layer to the one before it; null: all layers have one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head, decay = self.head_epochs, self.layer_decay
        require(head >= 0, "head_epochs", head, "0 or more", "use 0 to train all from the start")
        require(decay is None or 0 < decay <= 1, "layer_decay", decay, "null or a number in (0, 1]", "use 0.75")

    @property
    def is_empty(self) -> bool:
        return self.epochs == 0 and self.head_epochs == 0

    def num_steps(self, steps_per_epoch: int) -> int:
        return (self.head_epochs + self.epochs) * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class MovingMasksConfig(RecipeConfig):
    """Base of the recipes under which the masks move while the weights train: what is kept is what stands last."""

    select: str = "last"
    """Always last: the weights belong to the masks of the same moment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.select == "last", "select", self.select, "last", "leave it out")
        require(self.ema_decay is None, "ema_decay", self.ema_decay, "null: the masks move on too fast", "use null")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(MovingMasksConfig, SearchPassConfig):
    """The search of every method but SPP, in which the weights train or stand still, as the method wants it.

    conf/recipe/ gives it the loss, step sizes and precision of `prune`: weights that train in the search are trained as
    those that train in the walk.
    """


@dataclass(frozen=True, kw_only=True)
class PruneConfig(MovingMasksConfig):
    """The walk from dense to sparse along the path while the weights train; epochs=0 is the released scheme.

    A member has the weights of the moment at which its size was reached.
    """

    shape: str = "sine"
    """How the size falls with time: sine and cubic fall early, linear evenly, cosine late at first."""
    interval: int = 5
    """Steps between two re-selections of the masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shape in PRUNE_SHAPES, "shape", self.shape, ", ".join(PRUNE_SHAPES), "use sine")
        require(self.interval > 0, "interval", self.interval, "1 or more", "use 5")


RECIPES: Mapping[str, type[PassConfig]] = MappingProxyType(
    {
        "dense": DenseConfig,
        "update": UpdateConfig,
        "search": SearchConfig,
        "prune": PruneConfig,
        "finetune": RecipeConfig,
    }
)
"""Every recipe that a pipeline may name, with the class that holds it."""
