"""Stand-ins for the configs of other rooms, as plan sees them, and the configuration of a point."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from spp.config import Config
from spp.plan.reading import Readers, check_fields, read_setup


@dataclass(frozen=True, kw_only=True)
class Task(Config):
    name: str


@dataclass(frozen=True, kw_only=True)
class Model(Config):
    name: str
    weights: str = "train"
    per_head: bool = False
    has_new_head: bool = False

    @property
    def library(self):
        return self.name

    @property
    def label(self):
        return self.name

    @property
    def is_trained(self):
        return self.weights == "train"


@dataclass(frozen=True, kw_only=True)
class Data(Config):
    name: str
    fingerprint: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(Config):
    kinds: ClassVar = ("ranking",)
    trains_weights: ClassVar = True
    max_search_epochs: ClassVar = None

    name: str = "ranker"
    needs_heads: bool = False
    is_driven_by_dense: bool = False
    num_revisions: int = 0
    num_revisions_of_texts: ClassVar = 2

    def search_settings(self, kind):
        return {"name": self.name, "kind": kind}

    def selection_settings(self):
        return {"name": self.name}


@dataclass(frozen=True, kw_only=True)
class LabelFree(Method):
    """A method that needs two epochs of search, with frozen weights."""

    trains_weights: ClassVar = False
    max_search_epochs: ClassVar = 2


READERS = Readers(
    task=lambda values: (Task.read(values, "task"), {}),
    model=lambda values: (Model.read(values, "model"), {"weights_file": "/w"}),
    teacher=lambda values: (Model.read(values, "teacher"), {"weights_file": "/t"}) if values["name"] else (None, {}),
    data=lambda values, cache: (Data.read(values, "data"), {"cache": cache}),
    fingerprint=lambda data, runtime: {"name": data.name, "sha256": "0"},
    fixed_augment=lambda augment: {name: value for name, value in augment.items() if name == "sharpness"},
)
TRAINED = {"epochs": 10, "batch_size": 8, "lr": 1e-3}


@pytest.fixture
def cfg():
    """A composed configuration with all recipes."""
    return {
        "task": {"name": "classification"},
        "method": {"name": "ranker"},
        "pipeline": None,
        "model": {"name": "vit"},
        "teacher": {"name": None},
        "data": {"name": "digits"},
        "budget": {"kind": "macs", "values": [0.5, 0.3]},
        "sparsity": {"share": 0.5},
        "zero_shot": {"tasks": []},
        "calibration": {"name": None},
        "cluster": {"name": "debug"},
        "logger": {"mode": "offline", "project": "spp"},
        "paths": {"store": "store"},
        "store": {"trust": "user"},
        "seed": 0,
        "rest_of_walk": False,
        "repair": {"kind": "none"},
        "num_workers": 0,
        "num_threads": 1,
        "accelerator": "cpu",
        "dense": TRAINED,
        "update": {"epochs": 10, "batch_size": 8},
        "search": {**TRAINED, "label_smoothing": 0.1, "mixup": 0.8},
        "prune": TRAINED,
        "finetune": TRAINED,
    }


@pytest.fixture
def setup_of(cfg):
    """setup_of(**changes): the Setup of `cfg` with other top-level fields, for a pipeline with these recipes."""

    def read(recipes=("dense", "search", "prune", "finetune"), method=None, **changes):
        changed = {**cfg, **changes}
        check_fields(changed)
        return read_setup(changed, method or Method(), recipes, READERS, 0)

    return read


@pytest.fixture
def label_free():
    return LabelFree()


@pytest.fixture
def by_head():
    """A method that works on a network that is masked per head."""
    return Method(needs_heads=True)
