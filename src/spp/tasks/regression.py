"""Regression: a batch is (inputs, numbers), outputs are one number each (batch, 1); metrics are correlations."""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection, PearsonCorrCoef, SpearmanCorrCoef

from spp.data.facts import DataFacts
from spp.structure.inputs import Inputs
from spp.tasks.task import HIGHER, LOWER, Batch, Evaluator, Metric, Task, TrainingLoss
from spp.tasks.text_metrics import quietly, require_text_recipe


class Regression(Task):
    """How much of something a sample has, as STS-B of GLUE asks how alike two sentences are."""

    name = "regression"
    metrics = (
        Metric("pearson", "Pearson's correlation", "", HIGHER),
        Metric("spearman", "Spearman's correlation", "", HIGHER),
        Metric("mse", "mean squared error", "", LOWER),
    )
    headline = "pearson"
    outputs = "scores"
    num_outputs = 1

    def __init__(self, facts: DataFacts) -> None:
        super().__init__(facts)
        if facts.num_classes is not None:
            raise ValueError(
                f"task.name: regression needs numbers, and {facts.name} has classes; allowed: data such as data=stsb; "
                "use task=classification"
            )

    def inputs(self, batch: Batch) -> Inputs:
        inputs: Inputs = batch[0]
        return inputs

    def targets(self, batch: Batch) -> Tensor:
        numbers: Tensor = batch[1]
        return numbers

    def training_loss(self, recipe: Any) -> "SquaredError":
        require_text_recipe(recipe)
        if recipe.label_smoothing:
            raise ValueError(f"label_smoothing: {recipe.label_smoothing} is for classes; allowed: 0; leave it out")
        return SquaredError()

    def evaluator(self) -> "RegressionEvaluator":
        return RegressionEvaluator()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, kind: str) -> Tensor:
        """The mean squared difference, whatever the temperature."""
        return F.mse_loss(outputs, teacher_outputs)


class SquaredError(TrainingLoss):
    """Mean squared error, as BERT is trained on STS-B."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], targets.to(outputs.dtype))


class RegressionEvaluator(Evaluator):
    """Correlations over all samples; that of constant outputs is 0."""

    def __init__(self) -> None:
        super().__init__()
        with quietly():
            found: dict[str, Any] = {
                "pearson": PearsonCorrCoef(),
                "spearman": SpearmanCorrCoef(),
                "mse": MeanSquaredError(),
            }
        self._scores = MetricCollection(found, compute_groups=False)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        numbers: Tensor = batch[1]
        with quietly():
            self._scores.to(outputs.device).update(outputs[:, 0].float(), numbers.float())
        self.num_samples += len(numbers)

    def compute(self) -> dict[str, float]:
        with quietly():
            values = {name: float(value) for name, value in self._scores.compute().items()}
        return {name: 0.0 if math.isnan(value) and name != "mse" else value for name, value in values.items()}


TASK = Regression
