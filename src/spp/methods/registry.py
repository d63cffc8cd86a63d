"""The methods by name."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import spp.methods.units
from spp.config import require_name
from spp.methods.method import Method, MethodConfig, SearchCost


@functools.cache  # asked several times for each point of a sweep
def method_names() -> tuple[str, ...]:
    """Names that `method=` takes."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(spp.methods.units.__path__)))


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


def search_cost(settings: Mapping[str, Any], num_steps: int, batch_size: int) -> SearchCost | None:
    """What a search with some settings computes, see `MethodConfig.search_cost`; loads no torch.

    Args:
        settings: those of a method that its stage has.
        num_steps: of the recipe.
        batch_size: samples of each.

    Returns:
        None for settings that are not known here, such as those of a stage of other code.
    """
    try:
        config = config_class(str(settings["name"])).from_spec(settings, "method")
    except (KeyError, ValueError, ImportError):
        return None
    return config.search_cost(num_steps, batch_size)


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
