"""The pipeline files by name, and which of them a method runs in."""

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spp.locations import PIPELINES
from spp.methods.method import MethodConfig
from spp.methods.registry import check_kind, config_class, method_names
from spp.methods.weights.registry import weight_method_names
from spp.plan.spec import Stage

NICKNAMES = {"lasso_path": "one_search"}
"""Further names that a user may say for a file."""

WEIGHTS = "weights"
"""The kind of the pipeline that prunes single weights; all others prune units."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file.

    `kind` is what its searches end in, see spp.methods.method; `recipes` names the recipes that it uses; `stages`
    returns the final stages of a point from its setup (spp.plan.setup.Setup, or OneShotSetup of spp.plan.one_shot).
    """

    name: str
    kind: str
    recipes: tuple[str, ...]
    stages: Callable[[Any], tuple[Stage, ...]]


def find_pipeline(name: str | None, method: MethodConfig) -> Pipeline:
    """The pipeline that a user names, else the one of the method.

    Args:
        name: the name of a file without its .py, or a method, which stands for the file that it runs in; None: that
            of `method`.
        method: it has to fit.

    Raises:
        ValueError: one line, if there is no such file, or the method does not fit.
    """
    if name is None:
        return _of_kind(method.kinds[0])
    files = {pipeline.name: pipeline for pipeline in _pipelines() if pipeline.kind != WEIGHTS}
    if str(name) in method_names():
        found = _of_kind(config_class(str(name)).kinds[0])
    elif (file := NICKNAMES.get(str(name), str(name))) in files:
        found = files[file]
    else:
        names = sorted({*files, *NICKNAMES, *method_names()})
        close = difflib.get_close_matches(str(name), names, n=1)
        remedy = f"did you mean pipeline={close[0]}?" if close else "leave it out, and it follows from the method"
        raise ValueError(f"pipeline: {name!r} does not exist; allowed: {', '.join(names)}; {remedy}")
    check_kind(method, found.kind)
    return found


def _of_kind(kind: str) -> Pipeline:
    return next(pipeline for pipeline in _pipelines() if pipeline.kind == kind)


def prunes_weights(name: object, method: object) -> bool:
    """Whether a point prunes single weights: its pipeline says so or, where none is named, its method.

    Args:
        name: of the pipeline; None: not named.
        method: name of the method; those that there are for units, too, are for units.
    """
    if name is None:
        return method in weight_method_names() and method not in method_names()
    only_weights = set(weight_method_names()) - set(method_names())
    return name in only_weights or name == weight_pipeline().name


def weight_pipeline() -> Pipeline:
    """The pipeline that prunes single weights."""
    return _of_kind(WEIGHTS)


@cache
def _pipelines() -> tuple[Pipeline, ...]:
    """All pipeline files; they are small, and import no torch."""
    return tuple(_load(file) for file in sorted(PIPELINES.glob("*.py")))


def _load(file: Path) -> Pipeline:
    spec = importlib.util.spec_from_file_location(f"spp_pipeline_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Pipeline(file.stem, module.KIND, module.RECIPES, module.stages)
