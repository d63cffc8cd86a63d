"""The methods that choose single weights, by name."""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import spp.methods.weights
from spp.methods.weights.method import WeightMethodConfig

if TYPE_CHECKING:
    from spp.sparsity.problem import MaskChooser


def weight_method_names() -> list[str]:
    """Names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(spp.methods.weights.__path__) if module.ispkg)


def weight_config_class(name: str) -> type[WeightMethodConfig]:
    """The settings of a method; loads no torch."""
    config: type[WeightMethodConfig] = importlib.import_module(f"spp.methods.weights.{name}.config").CONFIG
    return config


def read_weight_method(values: Mapping[str, Any]) -> WeightMethodConfig:
    """Build the config of the method that `values["name"]` names.

    Raises:
        ValueError: if there is no such method, or its config refuses a value.
    """
    name, names = values.get("name"), weight_method_names()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        remedy = f"did you mean {close[0]}?" if close else "use wanda"
        raise ValueError(
            f"method.name: {name!r} is no method for single weights; allowed: {', '.join(names)}; {remedy}"
        )
    return weight_config_class(str(name)).read(values, "method")


def load_weight_method(config: WeightMethodConfig) -> "MaskChooser":
    """What a method does with its settings; loads torch."""
    method: MaskChooser = importlib.import_module(f"spp.methods.weights.{config.name}.choose").METHOD(config)
    return method
