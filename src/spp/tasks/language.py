"""Language modelling: a batch is windows of tokens, outputs are logits of the next (batch, length, vocabulary)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spp.structure.inputs import Inputs
from spp.tasks.task import LOWER, Batch, Evaluator, Metric, Task, TrainingLoss, sum_over_devices


class Language(Task):
    """What comes next in a text."""

    name = "language"
    metrics = (
        Metric("perplexity", "perplexity", "", LOWER),
        Metric("loss", "cross entropy per token", "nats", LOWER),
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
    """Sums the mean losses of windows, all equally long; the perplexity is the exponential of their mean."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: Tensor = torch.zeros(2, dtype=torch.float64)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        self.add(window_losses(outputs, batch[1]))

    def add(self, losses: Tensor) -> None:
        """Take in the mean losses of windows, (windows,)."""
        sums = torch.stack([losses.sum(), torch.tensor(float(len(losses)), device=losses.device)])
        if sums.device.type == "mps":  # knows no float64
            sums = sums.cpu()
        self._sums = self._sums.to(sums.device) + sums.double()
        self.num_samples += len(losses)

    def compute(self) -> dict[str, float]:
        loss, count = sum_over_devices(self._sums).tolist()
        return {"perplexity": _perplexity(loss / count), "loss": loss / count}


def _perplexity(loss: float) -> float:
    """The exponential, infinite where it is more than a float holds."""
    return math.exp(loss) if loss < 700 else math.inf


TASK = Language
