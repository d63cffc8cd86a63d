"""Language modelling: a batch is windows of tokens, outputs are logits of the next (batch, length, vocabulary)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spp.structure.inputs import Inputs
from spp.tasks.task import HIGHER, LOWER, Batch, Evaluator, Metric, Task, TrainingLoss, sum_over_devices


class Language(Task):
    """What comes next in a text."""

    name = "language"
    metrics = (
        Metric("perplexity", "perplexity", "", LOWER),
        Metric("loss", "cross entropy per token", "nats", LOWER),
        Metric("kl", "KL to dense per token", "nats", LOWER),
        Metric("agreement", "agreement with dense", "%", HIGHER),
    )
    headline = "perplexity"
    outputs = "logits"

    def inputs(self, batch: Batch) -> Inputs:
        inputs: Inputs = batch[0]
        return inputs

    def targets(self, batch: Batch) -> Tensor:
        tokens: Tensor = batch[1]
        return tokens

    def training_loss(self, recipe: Any) -> "LanguageLoss":
        for name in ("label_smoothing", "mixup", "cutmix", "input_noise"):
            value = getattr(recipe, name)
            if value:
                raise ValueError(f"{name}: {value} is not for text; allowed: 0; leave it out")
        return LanguageLoss()

    def evaluator(self) -> "LanguageEvaluator":
        return LanguageEvaluator()

    def sample_targets(self, outputs: Tensor) -> Tensor:
        """Next tokens drawn from the network's probabilities, each after the text as it is."""
        drawn = torch.multinomial(outputs.detach().float()[:, :-1].flatten(0, 1).softmax(1), 1)
        return F.pad(drawn.view(len(outputs), -1), (1, 0))

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, kind: str) -> Tensor:
        """Mean over the next tokens. soft: T^2 KL(teacher || student) of logits at temperature T (Hinton et al. 2015);
        hard: cross entropy with the teacher's likeliest token."""
        student, teacher = (logits[:, :-1].float().flatten(0, 1) for logits in (outputs, teacher_outputs))
        if kind == "hard":
            return F.cross_entropy(student, teacher.argmax(1))
        own, wanted = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
        return temperature**2 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)

    def check_outputs(self, outputs: Any, num_samples: int) -> None:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if not isinstance(outputs, Tensor) or outputs.ndim != 3 or len(outputs) != num_samples:
            raise ValueError(
                f"model: outputs of shape {shape} do not fit language; allowed: (windows, length, vocabulary); use a "
                "language model, such as model=llama_micro"
            )


class LanguageLoss(TrainingLoss):
    """Mean cross entropy of the next tokens."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return window_losses(outputs, targets).mean()


def window_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross entropy, in nats, of each window over its length - 1 next tokens, in fp32.

    Args:
        logits: (windows, length, vocabulary).
        tokens: (windows, length).

    Returns:
        (windows,) float32.
    """
    predicted = logits[:, :-1].float().flatten(0, 1)
    losses = F.cross_entropy(predicted, tokens[:, 1:].flatten(), reduction="none")
    return losses.view(len(tokens), -1).mean(1)


class LanguageEvaluator(Evaluator):
    """Sums the mean losses of windows, all equally long; the perplexity is the exponential of their mean.

    Beside the dense network also KL(dense || network) of the next token, and the share of tokens for which both have
    the same likeliest one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: Tensor = torch.zeros(2, dtype=torch.float64)
        self._distances: Tensor = torch.zeros(3, dtype=torch.float64)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        self.add(window_losses(outputs, batch[1]))

    def add(self, losses: Tensor) -> None:
        """Take in the mean losses of windows, (windows,)."""
        self._sums = _added(self._sums, losses.sum(), len(losses))
        self.num_samples += len(losses)

    def compare(self, outputs: Tensor, dense_outputs: Tensor) -> None:
        own, wanted = (logits[:, :-1].float().flatten(0, 1).log_softmax(1) for logits in (outputs, dense_outputs))
        distance = F.kl_div(own, wanted, reduction="sum", log_target=True)
        agreeing = (own.argmax(1) == wanted.argmax(1)).sum()
        self._distances = _added(self._distances, torch.stack([distance, agreeing]), len(own))

    def compute(self) -> dict[str, float]:
        loss, count = sum_over_devices(self._sums).tolist()
        values = {"perplexity": _perplexity(loss / count), "loss": loss / count}
        distance, agreeing, num_compared = sum_over_devices(self._distances).tolist()
        if num_compared:
            # Rounding may leave a divergence of equal outputs below 0.
            values |= {"kl": max(0.0, distance / num_compared), "agreement": 100 * agreeing / num_compared}
        return values


def _added(sums: Tensor, values: Tensor, count: int) -> Tensor:
    """Sums with those of further samples, whose number comes last."""
    values = F.pad(values.reshape(-1), (0, 1), value=float(count))
    if values.device.type == "mps":  # knows no float64
        values = values.cpu()
    return sums.to(values.device) + values.double()


def _perplexity(loss: float) -> float:
    """The exponential, infinite where it is more than a float holds."""
    return math.exp(loss) if loss < 700 else math.inf


TASK = Language
