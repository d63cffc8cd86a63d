"""What texts are measured by: the metrics of GLUE, by torchmetrics."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    BinaryMatthewsCorrCoef,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

NOT_FOR_TEXT = ("mixup", "cutmix", "input_noise")


def require_text_recipe(recipe: Any) -> None:
    """Refuse what a recipe does to pixels.

    Raises:
        ValueError: one line.
    """
    for name in NOT_FOR_TEXT:
        value = getattr(recipe, name)
        if value:
            raise ValueError(f"{name}: {value} is not for text; allowed: 0; leave it out")


@contextmanager
def quietly() -> Iterator[None]:
    """Without torchmetrics' words on memory, and on constant outputs, whose correlation is then said to be 0."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics.*")
        yield


def class_metrics(num_classes: int) -> MetricCollection:
    """F1, of two classes that of the second one, of more the mean over the classes, and Matthews' correlation."""
    if num_classes == 2:
        found: dict[str, Any] = {"f1": BinaryF1Score(), "matthews": BinaryMatthewsCorrCoef()}
    else:
        found = {
            "f1": MulticlassF1Score(num_classes, average="macro"),
            "matthews": MulticlassMatthewsCorrCoef(num_classes),
        }
    return MetricCollection(found)
