"""The methods that choose single weights, by name."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import spp.methods.weights
from spp.config import require_name
from spp.methods.weights.method import WeightMethodConfig

if TYPE_CHECKING:
    from spp.sparsity.problem import MaskChooser


@functools.cache  # asked several times for each point of a sweep
def weight_method_names() -> tuple[str, ...]:
    """Names of all methods."""
    modules = pkgutil.iter_modules(spp.methods.weights.__path__)
    return tuple(sorted(module.name for module in modules if module.ispkg))


def weight_config_class(name: str) -> type[WeightMethodConfig]:
    """The settings of a method; loads no torch."""
    config: type[WeightMethodConfig] = importlib.import_module(f"spp.methods.weights.{name}.config").CONFIG
    return config


def read_weight_method(values: Mapping[str, Any]) -> WeightMethodConfig:
    """Build the config of the method that `values["name"]` names.

    Raises:
        ValueError: if there is no such method, or its config refuses a value.
    """
    names = weight_method_names()
    name = require_name(values.get("name"), names, "method.name", "no method for single weights", "wanda")
    return weight_config_class(name).read(values, "method")


def load_weight_method(config: WeightMethodConfig) -> "MaskChooser":
    """What a method does with its settings; loads torch."""
    method: MaskChooser = importlib.import_module(f"spp.methods.weights.{config.name}.choose").METHOD(config)
    return method
