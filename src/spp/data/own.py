"""One's own data: `data.factory=my.module:make_data`.

The factory takes `data.kwargs` and returns a dictionary of map-style torch data sets, whose items are (input, target):

    train          its random transforms, if any, draw from torch, numpy or random: every sample has a seed of its own
    test           looked at once, at the end
    validation     optional: chooses weights and settings; without it `data.val_fraction` of train is held out, by
                   `data.split_seed`
    class_names    optional: the names of the classes, for classification
    samples        optional: what samples are called in tables, such as "images"
    preprocessing  optional: how raw samples become inputs, as plain values, for those who use a network elsewhere
"""

import json
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from spp.config import require
from spp.data.config import DataConfig
from spp.data.facts import DataFacts
from spp.data.module import DataModule, Positions, position_of
from spp.data.sampling import Draw, own_random_numbers, seed_transforms
from spp.data.split import Indices, stratified_split
from spp.factory import call_factory, load_factory

FIELDS = ("train", "test", "validation", "class_names", "samples", "preprocessing")
_ALLOWED = "a dictionary of train, test and perhaps " + ", ".join(FIELDS[2:])


class OwnData(DataModule):
    """Loaders over what a factory returned.

    Args:
        config: names the factory.
        runtime: where to find it.
        batch_size: samples per step over all devices together.
        seed: seed of order and augmentation.
        num_workers: worker processes per loader; 0 loads in the process itself.

    Raises:
        ValueError: one line, if the factory cannot be imported, has changed, fails or returns something else.
    """

    def __init__(
        self, config: DataConfig, runtime: Mapping[str, Any], *, batch_size: int, seed: int, num_workers: int
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        assert config.factory is not None
        assert config.source is not None
        self.config = config
        factory = load_factory(config.factory, runtime.get("folder"), config.source, "data.factory")
        self.made = _checked(call_factory(factory, config.kwargs, config.factory, "data.factory"), config.factory)
        if self.made.get("validation") is not None:
            _check_no_split(config)
        if config.num_train is not None and not 0 < config.num_train <= len(self.made["train"]):
            raise ValueError(
                f"data.num_train: {config.num_train} is not allowed; allowed: 1 to {len(self.made['train'])}, or null "
                "for all; use data.num_train=null"
            )

    @property
    def facts(self) -> DataFacts:
        names = self.made.get("class_names")
        return DataFacts(
            name=str(self.config.factory),
            samples=self.made.get("samples", "samples"),
            num_classes=None if names is None else len(names),
            class_names=None if names is None else tuple(map(str, names)),
            preprocessing=self.made.get("preprocessing", {}),
        )

    def split(self) -> tuple[Indices, Indices]:
        num_train = self.config.num_train or len(self.made["train"])
        if self.made.get("validation") is not None:
            return np.arange(num_train), np.arange(len(self.made["validation"]))
        # torchvision's data sets keep their classes under this name; without it the draw is from all alike.
        targets = np.asarray(getattr(self.made["train"], "targets", ()))
        classes = targets[:num_train] if targets.ndim == 1 and len(targets) else np.zeros(num_train)
        return stratified_split(classes, self.config.val_fraction, self.config.split_seed)

    def train_samples(self, positions: Positions) -> Dataset[Any]:
        return _SeededSamples(self.made["train"], positions)

    def val_samples(self, positions: Positions) -> Dataset[Any]:
        validation = self.made.get("validation")
        return _SeededSamples(self.made["train"] if validation is None else validation, positions)

    def test_samples(self) -> Dataset[Any]:
        return _SeededSamples(self.made["test"], range(len(self.made["test"])))


def _check_no_split(config: DataConfig) -> None:
    """Refuse settings of a split that is not made: they would tell apart what is the same work."""
    for name in ("val_fraction", "split_seed"):
        value, default = getattr(config, name), DataConfig.defaults()[name]
        allowed = f"{default}, which is not used, as {config.factory!r} returns a validation set"
        require(value == default, f"data.{name}", value, allowed, "leave it out")


class _SeededSamples(Dataset[Any]):
    """Samples of a data set, each under a seed of its own: that of the sampler's draw, or its position."""

    def __init__(self, dataset: Dataset[Any], positions: Positions) -> None:
        self.dataset, self.positions = dataset, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, asked: int | Draw) -> Any:
        with own_random_numbers():
            seed_transforms(asked.seed if isinstance(asked, Draw) else asked)
            return self.dataset[int(self.positions[position_of(asked)])]


def _checked(made: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(made, Mapping):
        _refuse(name, f"a {type(made).__name__}")
    fields: Mapping[str, Any] = made
    for field in fields:
        if field not in FIELDS:
            _refuse(name, f"an unknown {field!r}")
    for field in ("train", "test", "validation"):
        part: Any = fields.get(field)
        if part is None and field == "validation":
            continue
        if not isinstance(part, Sized) or not hasattr(part, "__getitem__"):
            _refuse(name, f"no map-style data set as {field!r}")
        if len(part) == 0:
            _refuse(name, f"an empty {field!r}")
        if field == "train":
            item = part[0]
            if not isinstance(item, Sequence) or len(item) != 2:
                _refuse(name, f"samples of train that are no pairs (input, target) but {type(item).__name__}")
    _check_description(fields, name)
    return fields


def _check_description(fields: Mapping[str, Any], name: str) -> None:
    """Refuse what the records could not hold, before hours of training."""
    names = fields.get("class_names")
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence) or not names):
        _refuse(name, f"{names!r} as 'class_names', which are no list of names")
    if not isinstance(fields.get("samples", ""), str):
        _refuse(name, f"{fields['samples']!r} as 'samples', which is no word")
    preprocessing = fields.get("preprocessing", {})
    if not isinstance(preprocessing, Mapping):
        _refuse(name, f"a {type(preprocessing).__name__} as 'preprocessing' instead of a dictionary of plain values")
    try:
        json.dumps(preprocessing, allow_nan=False)
    except (TypeError, ValueError) as error:
        _refuse(name, f"'preprocessing' that is not of plain values ({error})")


def _refuse(name: str, what: str) -> None:
    raise ValueError(f"data.factory: {name!r} returned {what}; allowed: {_ALLOWED}; see spp.data.own")
