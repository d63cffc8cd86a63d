"""Data sets by name; each is a module of spp.data.sources with `fingerprint` and `open_source` of an Access.

A data set whose files may lie in several forms lists them in FORMATS.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import cast, get_args

from spp.data import sources as sources_package
from spp.data.files import Identity
from spp.data.source import Access, OnError, Source


def sources() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sources_package.__path__)))


def fingerprint(
    name: str,
    root: str | Path | None,
    *,
    num_train: int | None = None,
    download: bool = False,
    format: str | None = None,
    on_error: str = "fail",
    cache: str | Path | None = None,
) -> Identity:
    """Identity of a data set's content, free of paths and times; quick: decodes no image, imports no torch.

    Args:
        name: one of `sources()`.
        root: folder of the data set; None for those that travel with a package.
        num_train: use only the first so many training images; None uses all.
        download: fetch the files into `root` if they are not there, where the data set can.
        format: the form in which the files lie, for data sets with several; None finds it out.
        on_error: fail names the first missing or broken file and ends; skip leaves it out, and images that cannot
            be decoded are replaced while training. What was trained on may then be less than the manifest says, so
            "skip" is part of the identity.
        cache: folder in which to remember the identities and the indices of large folders.

    Returns:
        {"name": ..., "splits": {"train": count, "test": count}, "sha256": hash of the manifest}, and with
        on_error=skip {"on_error": "skip"}. The same images in another form have another manifest.

    Raises:
        ValueError: if the name is unknown, the folder is missing, or its content is not the data set's.
    """
    access = _access(name, root, num_train, download, format, on_error, cache)
    identity: Identity = {"name": name, **_module(name).fingerprint(access)}
    return identity if access.on_error == "fail" else {**identity, "on_error": access.on_error}


def open_source(
    name: str,
    root: str | Path | None,
    *,
    num_train: int | None = None,
    download: bool = False,
    format: str | None = None,
    on_error: str = "fail",
    cache: str | Path | None = None,
) -> Source:
    """A data set, ready to read; arguments and errors as in `fingerprint`."""
    access = _access(name, root, num_train, download, format, on_error, cache)
    source: Source = _module(name).open_source(access)
    return source


def _access(
    name: str,
    root: str | Path | None,
    num_train: int | None,
    download: bool,
    format: str | None,
    on_error: str,
    cache: str | Path | None,
) -> Access:
    formats: tuple[str, ...] = getattr(_module(name), "FORMATS", ())
    if format is not None and format not in formats:
        allowed = ", ".join(("null", *formats))
        raise ValueError(
            f"data.format: {format!r} is not a form of {name}; allowed: {allowed}; use null to have it found out"
        )
    if on_error not in get_args(OnError):
        raise ValueError(f"data.on_error: {on_error!r} is not allowed; allowed: fail, skip; use fail")
    return Access(
        root=None if root is None else Path(root),
        num_train=num_train,
        download=download,
        format=format,
        on_error=cast(OnError, on_error),
        cache=None if cache is None else Path(cache),
    )


def _module(name: str) -> ModuleType:
    if name not in sources():
        raise ValueError(
            f"data.name: {name!r} is not known; allowed: {', '.join(sources())}; use one of them or add "
            f"spp/data/sources/{name}.py"
        )
    return importlib.import_module(f"{sources_package.__name__}.{name}")
