"""The paper's numbers, each with its source; what is not in paper.yaml is unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spp.record.metrics import MetricInfo

FILE = Path(__file__).with_name("paper.yaml")
TASK = "classification"
"""The task of the paper's tables of ImageNet and CIFAR-10."""
METRICS = {
    info.name: info
    for info in (
        MetricInfo("top1", "top-1", "%", "higher", "images"),
        MetricInfo("top5", "top-5", "%", "higher", "images"),
        MetricInfo("i2t_r1", "image to text R@1", "%", "higher", "images"),
        MetricInfo("t2i_r1", "text to image R@1", "%", "higher", "texts"),
        MetricInfo("arc_easy", "ARC-e accuracy", "%", "higher", "questions"),
    )
}
"""What the published values are of, by the names that `PublishedValue.metric` and the record have for it."""
HEADLINE = METRICS["top1"]
"""What the tables of that task are compared by."""


def quality_name(metric: MetricInfo) -> str:
    """What a title calls a metric: accuracy as in the paper where it is one of METRICS, else by its label."""
    return "Accuracy" if metric.name in METRICS else metric.heading


@dataclass(frozen=True)
class PublishedValue:
    """One number, in percent; `metric` is one of METRICS.

    model and data are the names of conf/model and conf/data where this project has them. budget: a count, or up to 1 a
    fraction of the dense model; None if unknown. macs (multiply-adds per image) and params: those of the pruned model
    where the source states them. words: overrides of `spp run` that fill the cell, and the epochs that this means for
    search with walk and for finetuning; None if this project cannot.
    """

    table: str
    method: str
    model: str
    data: str
    metric: str
    value: float
    budget_kind: str | None
    budget: float | None
    source: str
    note: str = ""
    macs: float | None = None
    params: float | None = None
    words: str | None = None
    search_epochs: int | None = None
    finetune_epochs: int | None = None


@dataclass(frozen=True)
class PublishedPerplexity:
    """Perplexity of a language model on the raw test text of WikiText-2.

    length: tokens of a window; pattern: 50 % or N:M as 2:4, empty for the dense model; calibration: text and length of
    its windows where the source states them.
    """

    model: str
    method: str
    pattern: str
    length: int
    value: float
    source: str
    calibration: str = ""


@dataclass(frozen=True)
class PublishedRecipe:
    """One row of Table 6: epochs of the three stages, images per step, learning rate; task: what the model is for.

    words: overrides of `spp run` that run it, with members at `budgets` (fractions of the dense model); None if this
    project cannot.
    """

    model: str
    data: str
    update_epochs: int
    prune_epochs: int
    finetune_epochs: int
    batch_size: int
    lr: float
    source: str
    task: str = TASK
    words: str | None = None
    budgets: Sequence[float] = ()


@dataclass(frozen=True)
class PublishedSearch:
    """Epochs of a method's search and of the training after it; DeiT on ImageNet."""

    method: str
    search_epochs: int
    finetune_epochs: int
    source: str
    note: str = ""


@dataclass(frozen=True)
class ReleasedRecipes:
    """By kind of stage the fields of a method's recipes as its authors' code has them, for DeiT on ImageNet.

    What the tables of the paper state, and what is not known, is not among them.
    """

    method: str
    source: str
    recipes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class DenseModel:
    """A model before pruning: multiply-adds per image and parameters."""

    model: str
    macs: float
    params: float


@dataclass(frozen=True)
class Setting:
    """Data and images of the paper's runs; img_size in pixels."""

    data: str
    img_size: int
    num_train_images: int


@dataclass(frozen=True)
class Published:
    """All that is known of the paper's tables."""

    values: tuple[PublishedValue, ...]
    perplexities: tuple[PublishedPerplexity, ...]
    recipes: tuple[PublishedRecipe, ...]
    searches: tuple[PublishedSearch, ...]
    released: tuple[ReleasedRecipes, ...]
    dense: Mapping[str, DenseModel]
    setting: Setting
    hardware: str

    def of_table(self, table: str, metric: str | None = None) -> list[PublishedValue]:
        """The values of a table, of one metric or of all."""
        return [value for value in self.values if value.table == table and metric in (None, value.metric)]

    def recipe(self, model: str) -> PublishedRecipe | None:
        """The row of Table 6 for a model."""
        return next((recipe for recipe in self.recipes if recipe.model == model), None)

    def released_recipes(self, method: str) -> Mapping[str, Mapping[str, Any]]:
        """What is known of the recipes in the code of a method's authors, by kind of stage."""
        return next((entry.recipes for entry in self.released if entry.method == method), {})

    def fraction(self, value: PublishedValue) -> float | None:
        """The budget of a value as a fraction of the dense model; None where one of them is unknown."""
        if value.budget is None or value.budget <= 1:
            return value.budget
        dense = self.dense.get(value.model)
        if dense is None or value.budget_kind not in ("macs", "params"):
            return None
        return value.budget / (dense.macs if value.budget_kind == "macs" else dense.params)


@cache
def load_published() -> Published:
    """Read paper.yaml.

    Raises:
        TypeError: if an entry there has another field than its dataclass.
    """
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(FILE))
    return Published(
        values=tuple(PublishedValue(**entry) for entry in content["values"]),
        perplexities=tuple(PublishedPerplexity(**entry) for entry in content["perplexities"]),
        recipes=tuple(PublishedRecipe(**entry) for entry in content["recipes"]),
        searches=tuple(PublishedSearch(**entry) for entry in content["searches"]),
        released=tuple(ReleasedRecipes(**entry) for entry in content["released"]),
        dense={entry["model"]: DenseModel(**entry) for entry in content["dense"]},
        setting=Setting(**content["setting"]),
        hardware=content["hardware"],
    )
