"""Which adapter serves which model, also one that is held by another module."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import NoReturn

from torch import nn

from spp.structure.adapters.adapter import Adapter
from spp.structure.adapters.held import HeldAdapter

_ADAPTERS: dict[str, Adapter] = {}


def register(adapter: Adapter) -> None:
    """Make an adapter known. Also the way in for an architecture that lives outside of this package."""
    for name in adapter.model_classes:
        _ADAPTERS[name] = adapter


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter of the model's class, of the nearest base class that has one, or of the one network that it holds.

    Raises:
        ValueError: there is none, there are several, or `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model: {type(model).__name__} is not allowed: must be a torch.nn.Module; use timm.create_model(name)"
        )
    _import_adapters()
    own = _of_class(model)
    if own is not None:
        return own
    held = list(_held(model, ""))
    if not held:
        refuse(model, _first_unknown(model))
    if len(held) > 1:
        names = ", ".join(name for name, _ in held)
        raise ValueError(
            f"model: {type(model).__name__} is not allowed: it holds several networks ({names}), and an adapter knows"
            " one; give that network itself, or write an adapter for the whole (see spp/structure/adapters/adapter.py)"
        )
    return HeldAdapter(*held[0])


def refuse(model: nn.Module, module: str) -> NoReturn:
    """Raise the one-line ValueError that names the model's class and the module that was not understood."""
    supported = ", ".join(_supported())
    part = type(model.get_submodule(module)).__name__
    raise ValueError(
        f"model: {type(model).__name__} is not supported: {module or 'itself'} ({part}) was not understood;"
        f" supported are {supported} with plain attention and MLP blocks;"
        " for another architecture write an adapter (see spp/structure/adapters/adapter.py)"
    )


def _supported() -> list[str]:
    """The classes that adapters serve, of a module that has several the one with the shortest name."""
    by_module: dict[str, str] = {}
    for name in sorted(_ADAPTERS, key=len):
        by_module.setdefault(name.rpartition(".")[0], name.rpartition(".")[2])
    return sorted(by_module.values())


def refuse_computed(model: nn.Module, module: str, weight: str) -> NoReturn:
    """Raise the one-line ValueError for a Linear whose weight a hook computes anew from other parameters."""
    parts = ", ".join(name for name, _ in model.get_submodule(module).named_parameters(recurse=False))
    raise ValueError(
        f"model: {module}.{weight} is not allowed: it is no plain parameter but computed from {parts}; allowed:"
        " Linears with plain parameters; make it one with torch.nn.utils.prune.remove, remove_weight_norm or"
        " remove_spectral_norm"
    )


def _of_class(model: nn.Module) -> Adapter | None:
    for base in type(model).__mro__:
        adapter = _ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if adapter is not None:
            return adapter
    return None


def _held(model: nn.Module, name: str) -> Iterator[tuple[str, Adapter]]:
    """The outermost networks inside a model that have an adapter, with their dotted names."""
    for child_name, child in model.named_children():
        path = f"{name}.{child_name}".removeprefix(".")
        adapter = _of_class(child)
        if adapter is not None:
            yield path, adapter
        else:
            yield from _held(child, path)


@cache
def _import_adapters() -> None:
    package = __name__.rpartition(".")[0]
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(info.name)


def _first_unknown(model: nn.Module) -> str:
    """The first module that is no common building block, else the first with parameters, else the model."""
    named = dict(model.named_modules())
    del named[""]
    own = [n for n, m in named.items() if not type(m).__module__.startswith(("torch.nn.", "timm.layers."))]
    weighted = [n for n, m in named.items() if next(m.parameters(recurse=False), None) is not None]
    return next(iter(own or weighted), "")
