"""Data sets by name; each is a module of spp.data.sources with the two functions below, less the name."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from spp.data import sources as sources_package
from spp.data.files import Identity
from spp.data.source import Source


def sources() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sources_package.__path__)))


def fingerprint(
    name: str,
    root: str | Path | None,
    *,
    num_train: int | None = None,
    download: bool = False,
    cache: str | Path | None = None,
) -> Identity:
    """Identity of a data set's content, free of paths and times; quick: decodes no image, imports no torch.

    Args:
        name: one of `sources()`.
        root: folder of the data set; None for those that travel with a package.
        num_train: use only the first so many training images; None uses all.
        download: fetch the files into `root` if they are not there, where the data set can.
        cache: folder in which to remember the identities of large folders.

    Returns:
        {"name": ..., "splits": {"train": count, "test": count}, "sha256": hash of the manifest}.

    Raises:
        ValueError: if the name is unknown, the folder is missing, or its content is not the data set's.
    """
    cache = None if cache is None else Path(cache)
    identity: Identity = _module(name).fingerprint(root, num_train=num_train, download=download, cache=cache)
    return {"name": name, **identity}


def open_source(name: str, root: str | Path | None, *, num_train: int | None = None, download: bool = False) -> Source:
    """A data set, ready to read; arguments and errors as in `fingerprint`."""
    source: Source = _module(name).open_source(root, num_train=num_train, download=download)
    return source


def _module(name: str) -> ModuleType:
    if name not in sources():
        raise ValueError(
            f"data.name: {name!r} is not known; allowed: {', '.join(sources())}; use one of them or add "
            f"spp/data/sources/{name}.py"
        )
    return importlib.import_module(f"{sources_package.__name__}.{name}")
