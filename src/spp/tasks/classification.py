"""Classification: a batch is (inputs, labels), outputs are scores of classes (batch, num_classes).

Of texts the metrics are those of GLUE.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from spp.data.facts import DataFacts
from spp.structure.inputs import Inputs
from spp.tasks.task import HIGHER, LOWER, Batch, Evaluator, Metric, Task, TrainingLoss, sum_over_devices

TOP = 5
"""Rank to which the true class must come for the second accuracy, or the number of classes where there are fewer."""


class Classification(Task):
    """Which of several classes a sample belongs to."""

    name = "classification"
    metrics: tuple[Metric, ...] = (
        Metric("top1", "top-1", "%", HIGHER),
        Metric("top5", "top-5", "%", HIGHER),
        Metric("loss", "cross entropy", "nats", LOWER),
        Metric("kl", "KL to dense", "nats", LOWER),
        Metric("agreement", "agreement with dense", "%", HIGHER),
    )
    headline = "top1"
    outputs = "logits"

    def __init__(self, facts: DataFacts) -> None:
        super().__init__(facts)
        if facts.num_classes is None:
            raise ValueError(
                f"task.name: classification needs classes, and {facts.name} has none; allowed: data with classes, such "
                "as data=digits; name them in what data.factory returns, or use another task"
            )
        self.num_outputs = facts.num_classes

    def inputs(self, batch: Batch) -> Inputs:
        inputs: Inputs = batch[0]
        return inputs

    def targets(self, batch: Batch) -> Tensor:
        labels: Tensor = batch[1]
        return labels

    def training_loss(self, recipe: Any) -> "ClassificationLoss":
        assert self.num_outputs is not None
        return ClassificationLoss(recipe, self.num_outputs)

    def evaluator(self) -> "ClassificationEvaluator":
        return ClassificationEvaluator()

    def sample_targets(self, outputs: Tensor) -> Tensor:
        """A class for each sample, drawn from the network's probabilities."""
        return torch.multinomial(outputs.detach().float().softmax(dim=1), 1).flatten()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, kind: str) -> Tensor:
        """soft: T^2 KL(teacher || student) of scores at temperature T (Hinton et al. 2015); hard: cross entropy with
        the teacher's first class (DeiT, Touvron et al. 2021)."""
        if kind == "hard":
            return F.cross_entropy(outputs, teacher_outputs.argmax(1))
        student, teacher = (F.log_softmax(scores / temperature, dim=1) for scores in (outputs, teacher_outputs))
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class ClassificationLoss(TrainingLoss):
    """Cross entropy with the recipe's noise, mixing and smoothing."""

    def __init__(self, recipe: Any, num_classes: int) -> None:
        self.input_noise: float = recipe.input_noise
        self.mixup = _mixup(recipe, num_classes)
        self.loss: nn.Module = nn.CrossEntropyLoss()
        if self.mixup is not None:
            self.loss = SoftTargetCrossEntropy()
        elif recipe.label_smoothing:
            self.loss = LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def prepare(self, inputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
        if self.input_noise:
            inputs = inputs + self.input_noise * torch.randn_like(inputs)
        if self.mixup is not None:
            inputs, targets = self.mixup(inputs, targets)
        return inputs, targets

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.loss(outputs, targets)
        return loss


def _mixup(recipe: Any, num_classes: int) -> Mixup | None:
    if not recipe.mixup and not recipe.cutmix:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


class ClassificationEvaluator(Evaluator):
    """Counts the right answers, and sums the cross entropy; beside the dense network also how far it is from that.

    The divergence is KL(dense || network) of the classes' probabilities, which tells members apart that have the same
    accuracy; agreement is the share of samples for which both have the same first class.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: Tensor = torch.zeros(4, dtype=torch.float64)
        self._distances: Tensor = torch.zeros(3, dtype=torch.float64)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        labels: Tensor = batch[1]
        is_first = outputs.argmax(1) == labels
        is_among_top = outputs.topk(min(TOP, outputs.shape[1]), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(outputs.float(), labels, reduction="sum")
        count = torch.tensor(len(labels), device=loss.device)
        self._sums = _added(self._sums, torch.stack([is_first.sum(), is_among_top.sum(), loss, count]))
        self.num_samples += len(labels)

    def compare(self, outputs: Tensor, dense_outputs: Tensor) -> None:
        own, wanted = (F.log_softmax(scores.float(), dim=1) for scores in (outputs, dense_outputs))
        distance = F.kl_div(own, wanted, reduction="sum", log_target=True)
        agreeing = (outputs.argmax(1) == dense_outputs.argmax(1)).sum()
        count = torch.tensor(len(outputs), device=distance.device)
        self._distances = _added(self._distances, torch.stack([distance, agreeing, count]))

    def compute(self) -> dict[str, float]:
        first, among_top, loss, count = sum_over_devices(self._sums).tolist()
        values = {"top1": 100 * first / count, "top5": 100 * among_top / count, "loss": loss / count}
        distance, agreeing, num_compared = sum_over_devices(self._distances).tolist()
        if num_compared:
            # Rounding may leave a divergence of equal outputs below 0.
            values |= {"kl": max(0.0, distance / num_compared), "agreement": 100 * agreeing / num_compared}
        return values


def _added(sums: Tensor, values: Tensor) -> Tensor:
    if values.device.type == "mps":  # knows no float64
        values = values.cpu()
    return sums.to(values.device) + values.double()


class TextClassification(Classification):
    """Classification of texts or of pairs of them.

    Accuracy; F1 (of two classes that of the second one, of more the mean over the classes); Matthews' correlation. A
    test set of several parts is measured on its first one; of the others there is the accuracy.
    """

    headline = "accuracy"

    def __init__(self, facts: DataFacts) -> None:
        super().__init__(facts)
        self.metrics = (
            Metric("accuracy", "accuracy", "%", HIGHER),
            Metric("f1", "F1", "%", HIGHER),
            Metric("matthews", "Matthews' correlation", "", HIGHER),
            Metric("loss", "cross entropy", "nats", LOWER),
            Metric("kl", "KL to dense", "nats", LOWER),
            Metric("agreement", "agreement with dense", "%", HIGHER),
            *(Metric(f"accuracy_{part}", f"accuracy ({part})", "%", HIGHER) for part in facts.parts[1:]),
        )

    def training_loss(self, recipe: Any) -> ClassificationLoss:
        from spp.tasks.text_metrics import require_text_recipe

        require_text_recipe(recipe)
        return super().training_loss(recipe)

    def evaluator(self) -> "TextEvaluator":
        assert self.num_outputs is not None
        return TextEvaluator(self.num_outputs, self.facts.parts)


class TextEvaluator(ClassificationEvaluator):
    """Measures the first part of a set as images are measured, and by F1 and correlation; of the others the accuracy.

    Args:
        num_classes: number of classes.
        parts: names of the parts; batches of a set with several hold the part of each sample as a third entry.
    """

    def __init__(self, num_classes: int, parts: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        # Here, as torchmetrics takes its time, and whoever measures images needs none of it.
        from spp.tasks.text_metrics import class_metrics, quietly

        self._scores, self._quietly = class_metrics(num_classes), quietly
        self._parts = parts
        self._counts = torch.zeros(len(parts), 2, dtype=torch.float64)
        self._is_compared: Tensor | None = None

    def update(self, outputs: Tensor, batch: Batch) -> None:
        labels: Tensor = batch[1]
        self._is_compared = None
        if len(self._parts) > 1 and len(batch) > 2:
            part: Tensor = batch[2]
            is_right = outputs.argmax(1) == labels
            for number in range(1, len(self._parts)):
                is_own = part == number
                self._counts[number] += torch.stack([(is_right & is_own).sum(), is_own.sum()]).cpu()
            self._is_compared = part == 0
            outputs, labels = outputs[self._is_compared], labels[self._is_compared]
        if not len(labels):
            return
        super().update(outputs, (batch[0], labels))
        self._scores.to(outputs.device).update(outputs.argmax(1), labels)

    def compare(self, outputs: Tensor, dense_outputs: Tensor) -> None:
        if self._is_compared is not None:
            outputs, dense_outputs = outputs[self._is_compared], dense_outputs[self._is_compared]
        if len(outputs):
            super().compare(outputs, dense_outputs)

    def compute(self) -> dict[str, float]:
        values = super().compute()
        with self._quietly():
            scores = self._scores.compute()
        counts = sum_over_devices(self._counts)
        of_parts = zip(self._parts, counts.tolist(), strict=True)
        parts = {f"accuracy_{name}": right / count for name, (right, count) in of_parts if count}
        return {
            "accuracy": values["top1"],
            "f1": 100 * float(scores["f1"]),
            "matthews": float(scores["matthews"]),
            **{name: value for name, value in values.items() if name not in ("top1", "top5")},
            **{name: 100 * value for name, value in parts.items()},
        }


def classification_of(facts: DataFacts) -> Classification:
    """The task for some data: texts have metrics of their own.

    Raises:
        ValueError: one line, if the samples have no classes.
    """
    return TextClassification(facts) if facts.are_texts else Classification(facts)


TASK = classification_of
