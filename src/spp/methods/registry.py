"""The methods by name."""

import importlib
import pkgutil
from typing import Any

import spp.methods.units
from spp.config import require_name
from spp.methods.method import Method, MethodConfig


def method_names() -> list[str]:
    """Names that `method=` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(spp.methods.units.__path__))


def config_class(name: str) -> type[MethodConfig]:
    """The settings of a method; loads no torch."""
    config: type[MethodConfig] = importlib.import_module(f"spp.methods.units.{name}.config").CONFIG
    return config


def load_method(name: str) -> Method[Any]:
    """What a method does; loads torch."""
    method: Method[Any] = importlib.import_module(f"spp.methods.units.{name}.search").METHOD
    return method


def read_method(values: dict[str, Any]) -> MethodConfig:
    """Build the config of the method that `values["name"]` names.

    Raises:
        ValueError: if there is no such method, or its config refuses a value.
    """
    name = require_name(values.get("name"), method_names(), "method.name", "not a method")
    return config_class(name).read(values, "method")


def check_kind(method: MethodConfig, kind: str) -> None:
    """Refuse a method in a pipeline that is not made for it.

    Args:
        method: the settings of the method.
        kind: what the pipeline wants a search to end in, of `spp.methods.method.KINDS`.

    Raises:
        ValueError: one line that names the methods that fit.
    """
    if kind not in method.kinds:
        fitting = ",".join(name for name in method_names() if kind in config_class(name).kinds)
        raise ValueError(
            f"pipeline: it does not fit method={method.name}; allowed with it: method={fitting}; "
            "leave pipeline out, and it follows from the method"
        )
