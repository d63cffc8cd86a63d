"""What a task is: all that stages must know of what a network is for; loop, weights and record are the stages'."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from spp.data.facts import DataFacts
from spp.structure.inputs import Inputs

if TYPE_CHECKING:
    from spp.tasks.momentum import MomentumLoss

Batch = Any
"""What the data's loaders yield; only the task that the data are for knows its form."""

HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True)
class Metric:
    """A number that says how well a network does its task.

    Attributes:
        name: in records and configurations.
        label: in tables and figures.
        unit: "%", "nats", "" for a bare number.
        better: higher or lower.
    """

    name: str
    label: str
    unit: str
    better: str

    def is_better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better."""
        return value > than if self.better == HIGHER else value < than

    @property
    def worst(self) -> float:
        """What every value is better than."""
        return float("-inf") if self.better == HIGHER else float("inf")


class Evaluator(ABC):
    """Measures a network on a data set, batch by batch; a metric of a whole gallery keeps what it needs until the end.

    One evaluator lives on each device and sees that device's share of the samples; every sample is seen once.
    """

    def __init__(self) -> None:
        self.num_samples = 0

    @abstractmethod
    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in the outputs for one batch; counts its samples in `num_samples`."""

    def compare(self, outputs: Any, dense_outputs: Any) -> None:  # noqa: B027 - not every task can
        """Take in what the dense network puts out for the batch that `update` has just had."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics by name over the samples of all devices; called on all at once (see `sum_over_devices`,
        `gather_over_devices`)."""


class TrainingLoss(ABC):
    """The loss under one recipe: what it does to a batch before the network sees it, and how outputs are judged."""

    def prepare(self, inputs: Inputs, targets: Any) -> tuple[Inputs, Any]:
        """Inputs and targets of this step: after noise and mixing, where the recipe wants them."""
        return inputs, targets

    @abstractmethod
    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The mean loss over the samples of a batch, for prepared targets."""


class Task(ABC):
    """What a network is for.

    Args:
        facts: of the data that it is trained and measured on.

    Attributes:
        name: of the task.
        metrics: what is measured, in the order of the record.
        headline: name of the metric that picks weights and stands in tables.
        outputs: what a network's outputs are called.
        num_outputs: width of the network's last layer; None where the task does not say.
    """

    name: ClassVar[str]
    metrics: tuple[Metric, ...]
    headline: ClassVar[str]
    outputs: ClassVar[str] = "outputs"
    num_outputs: int | None = None

    def __init__(self, facts: DataFacts) -> None:
        self.facts = facts

    @abstractmethod
    def inputs(self, batch: Batch) -> Inputs:
        """What the network is called with."""

    @abstractmethod
    def targets(self, batch: Batch) -> Any:
        """What its outputs are compared with."""

    @abstractmethod
    def training_loss(self, recipe: Any) -> TrainingLoss:
        """The loss under a recipe (spp.plan.recipes.PassConfig).

        Raises:
            ValueError: one line, if the recipe asks for something that the task does not have.
        """

    @abstractmethod
    def evaluator(self) -> Evaluator:
        """A fresh evaluator."""

    def check_outputs(self, outputs: Any, num_samples: int) -> None:
        """Refuse a network whose outputs for `num_samples` samples are not of the task's form.

        Raises:
            ValueError: one line.
        """
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if self.num_outputs is not None and shape != (num_samples, self.num_outputs):
            raise ValueError(
                f"model: outputs of shape {shape} do not fit {self.name}; allowed: ({num_samples}, {self.num_outputs}) "
                f"for {num_samples} {self.facts.samples}; give the network {self.num_outputs} outputs"
            )

    def sample_targets(self, outputs: Any) -> Any:
        """Targets drawn from what a network says itself, for tasks that can: one for each sample of `outputs`.

        Under their distribution squared gradients have the Fisher information as their mean.

        Raises:
            ValueError: one line, of other tasks.
        """
        raise ValueError(
            f"method.name: {self.name} cannot draw answers from a network's outputs; allowed: methods that use labels; "
            "use method=taylor"
        )

    def check_sampling(self) -> None:
        """Refuse a method that draws answers from a network's outputs, where the task cannot.

        Raises:
            ValueError: one line.
        """
        if type(self).sample_targets is Task.sample_targets:
            self.sample_targets(None)

    def check_distillation(self) -> None:
        """Refuse a teacher, where the task cannot learn from one.

        Raises:
            ValueError: one line.
        """
        if type(self).distillation_loss is Task.distillation_loss:
            raise ValueError(f"distill_weight: {self.name} does not learn from a teacher; allowed: 0; leave it out")

    def momentum_loss(self, network: nn.Module, recipe: Any, steps_per_epoch: int) -> "MomentumLoss":
        """The loss under a recipe with a momentum_weight, for tasks that have one; it copies the network."""
        raise NotImplementedError

    def check_momentum(self, weight: float) -> None:
        """Refuse a momentum_weight, where the task has no such loss.

        Raises:
            ValueError: one line.
        """
        if weight and type(self).momentum_loss is Task.momentum_loss:
            raise ValueError(f"momentum_weight: {weight} is not for {self.name}; allowed: 0; leave it out")

    def distillation_loss(self, outputs: Any, teacher_outputs: Any, temperature: float, kind: str) -> Tensor:
        """How far outputs are from a teacher's for the same inputs, mean over the samples; for tasks that can tell.

        Args:
            outputs: of the network.
            teacher_outputs: of the teacher.
            temperature: of soft outputs.
            kind: soft (whole outputs) or hard (the teacher's answer).
        """
        raise NotImplementedError

    @property
    def headline_metric(self) -> Metric:
        """The metric that picks weights and stands in tables."""
        return next(metric for metric in self.metrics if metric.name == self.headline)

    def describe(self, values: Mapping[str, float], num_samples: int) -> dict[str, dict[str, Any]]:
        """Values by name as the record holds them: value, unit, direction, sample count, label."""
        return {
            metric.name: {
                "value": values[metric.name],
                **{name: text for name, text in asdict(metric).items() if name != "name"},
                "count": num_samples,
                "of": self.facts.samples,
            }
            for metric in self.metrics
            if metric.name in values
        }


def sum_over_devices(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes that train together; the tensor itself where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values


def gather_over_devices(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes that train together, those of the first one first; `rows` where there is one.

    For metrics of a whole gallery; the processes may have different numbers of rows.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
