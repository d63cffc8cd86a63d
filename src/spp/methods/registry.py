"""The methods by name. A new method is one module here and one file in conf/method."""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import spp.methods
from spp.config import Config


def method_names() -> list[str]:
    """Names that `method=` takes."""
    return sorted(m.name for m in pkgutil.iter_modules(spp.methods.__path__) if m.name != "registry")


def method_module(name: str) -> ModuleType:
    """The module of a method: `METHOD_CONFIG`, and `select` to choose a member from its path."""
    return importlib.import_module(f"spp.methods.{name}")


def read_method(values: dict[str, Any]) -> Config:
    """Build the config of the method that `values["name"]` names.

    Raises:
        ValueError: if there is no such method, or its config refuses a value.
    """
    name, names = values.get("name"), method_names()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"use {names[0]}"
        raise ValueError(f"method.name: {name!r} is not a method; allowed: {', '.join(names)}; {remedy}")
    config_class: type[Config] = method_module(str(name)).METHOD_CONFIG
    return config_class.read(values, "method")
