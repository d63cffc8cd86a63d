"""Data sets by name; each is a module of spp.data.sources with `fingerprint` and `open_source` of an Access.

A data set whose files may lie in several forms lists them in FORMATS.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack, get_args

from spp.data import sources as sources_package
from spp.data.files import Identity
from spp.data.source import Access, OnError, Options, Source


def sources() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sources_package.__path__)))


def fingerprint(name: str, root: str | Path | None, **options: Unpack[Options]) -> Identity:
    """Identity of a data set's content, free of paths and times; quick: decodes no image, imports no torch.

    Args:
        name: one of `sources()`.
        root: folder of the data set; None for those that travel with a package.
        options: how it is to be read, see spp.data.source.Access.

    Returns:
        {"name": ..., "splits": {"train": count, "test": count}, "sha256": hash of the manifest}, and with
        on_error=skip {"on_error": "skip"}. The same images in another form have another manifest.

    Raises:
        ValueError: if the name is unknown, the folder is missing, or its content is not the data set's.
    """
    access = _access(name, root, options)
    identity: Identity = {"name": name, **_module(name).fingerprint(access)}
    return identity if access.on_error == "fail" else {**identity, "on_error": access.on_error}


def open_source(name: str, root: str | Path | None, **options: Unpack[Options]) -> Source:
    """A data set, ready to read; arguments and errors as in `fingerprint`."""
    source: Source = _module(name).open_source(_access(name, root, options))
    return source


def _access(name: str, root: str | Path | None, options: Options) -> Access:
    given: dict[str, Any] = {**options}
    if given.get("cache") is not None:
        given["cache"] = Path(given["cache"])
    access = Access(root=None if root is None else Path(root), **given)
    formats: tuple[str, ...] = getattr(_module(name), "FORMATS", ())
    if access.format is not None and access.format not in formats:
        allowed = ", ".join(("null", *formats))
        raise ValueError(
            f"data.format: {access.format!r} is not a form of {name}; allowed: {allowed}; use null to have it found out"
        )
    if access.on_error not in get_args(OnError):
        raise ValueError(f"data.on_error: {access.on_error!r} is not allowed; allowed: fail, skip; use fail")
    return access


def _module(name: str) -> ModuleType:
    if name not in sources():
        raise ValueError(
            f"data.name: {name!r} is not known; allowed: {', '.join(sources())}; use one of them or add "
            f"spp/data/sources/{name}.py"
        )
    return importlib.import_module(f"{sources_package.__name__}.{name}")
