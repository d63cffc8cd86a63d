"""The methods by name. A new method is one module here and one file in conf/method."""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

import spp.methods
from spp.config import Config

if TYPE_CHECKING:
    from torch import nn


def method_names() -> list[str]:
    """Names that `method=` takes."""
    modules = (module.name for module in pkgutil.iter_modules(spp.methods.__path__))
    return sorted(name for name in modules if name != "registry" and not name.startswith("_"))


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


def finish_member(method: Config, small: "nn.Module", seed: int) -> dict[str, Any]:
    """Do to a compact network, in place, what the method does beside cutting: nothing without released_quirks.

    Args:
        method: the method's config, or what of it chooses a member.
        small: the compact network, on the CPU.
        seed: of the point; what is drawn depends on it alone.

    Returns:
        What the header of the member's file must say, for the network to be built again.

    Raises:
        ValueError: it cannot be done to this network.
    """
    module = method_module(vars(method)["name"])
    return module.finish_member(method, small, seed) if hasattr(module, "finish_member") else {}


def kinds_of(method: Config) -> tuple[str, ...]:
    """What a method's searches may end in, the one of its own pipeline first.

    "path" (SPP's), "ranking" (scores for all budgets), "budget ranking" (scores for one budget) or "budget" (the member
    of one budget). A module whose searches may end in several says so in `KINDS`; of others it shows.
    """
    module = method_module(vars(method)["name"])
    if not hasattr(module, "build_search"):
        return ("path",)
    if not hasattr(module, "select"):
        return ("budget",)
    kinds: tuple[str, ...] = getattr(module, "KINDS", ("ranking",))
    return kinds


def check_kind(method: Config, kind: str) -> None:
    """Refuse a method in a pipeline that is not made for it.

    Raises:
        ValueError: one line that names the methods that fit.
    """
    if kind not in kinds_of(method):
        fitting = [name for name in method_names() if kind in kinds_of(method_module(name).METHOD_CONFIG())]
        raise ValueError(
            f"pipeline: it does not fit method={vars(method)['name']}; allowed with it: method={','.join(fitting)}; "
            "leave pipeline out, and it follows from the method"
        )
