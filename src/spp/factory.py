"""A user's own code by name, `my.module:make_model`: found without running it, hashed, imported where it is used."""

import ast
import functools
import hashlib
import importlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*(?P<name>\w+)\s*(?:,(?P<default>[^${}]*))?\}")
_ALLOWED = "module:function, where the module lies in this folder or on PYTHONPATH"
_INSTALLED = ("site-packages", "dist-packages")
"""Names of the folders in which packages are installed, of which each is taken by itself."""

_digests: dict[str, str] = {}
"""By name of a module or package the hash of its files as they were imported here."""


@dataclass(frozen=True)
class Factory:
    """Where a factory lies.

    Attributes:
        name: module:function.
        folder: the folder to import the module from.
        source: sha256 over the module's file or, of a module in a package, over all .py files of that package; with
            those of what it imports from the same folder, unless that is one of installed packages.
    """

    name: str
    folder: Path
    source: str


def find_factory(name: str, field: str) -> Factory:
    """Look a factory up in the current folder and on Python's path, without running any of its code.

    Args:
        name: module:function.
        field: whose value it is, for messages.

    Raises:
        ValueError: it is no such name, or there is no such module.
    """
    folder, module = _place_of(name, field)
    return Factory(str(name), folder, _source_of(folder, module))


def _place_of(name: str, field: str) -> tuple[Path, str]:
    """The folder that a factory's module is imported from, and the module's full name."""
    match = _NAME.fullmatch(str(name))
    if match is None:
        raise ValueError(f"{field}: {name!r} is no factory; allowed: {_ALLOWED}; write my_module:make")
    relative = Path(*match["module"].split("."))
    for folder in dict.fromkeys(Path(entry or ".").resolve() for entry in (os.curdir, *sys.path)):
        if _file_of(folder / relative) is not None:
            return folder, match["module"]
    raise ValueError(
        f"{field}: there is no module {match['module']!r}; allowed: {_ALLOWED}; start in its folder or set PYTHONPATH"
    )


def find_own(name: str, field: str) -> Path:
    """The folder of a factory that a file from anywhere names.

    Its arguments are the file's, so that it must be the user's own code.

    Raises:
        ValueError: see `find_factory`; or it lies among Python's own modules, or among the installed packages without
            PYTHONPATH naming their folder.
    """
    folder, _ = _place_of(name, field)
    named = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    places = [Path(sysconfig.get_path(place)).resolve() for place in ("stdlib", "platstdlib")]
    is_installed = set(_INSTALLED) & set(folder.parts) and folder not in named
    if is_installed or folder in places:
        raise ValueError(
            f"{field}: {name!r} lies in {str(folder)!r}, and a file may not choose what is called there; "
            f"allowed: {_ALLOWED}; if it is yours, start in its folder or set PYTHONPATH"
        )
    return folder


def load_factory(name: str, folder: str | None, source: str, field: str) -> Callable[..., Any]:
    """Import a factory.

    Args:
        name: module:function.
        folder: to import the module from; None: where `find_own` finds it.
        source: sha256 of its source as it was planned with.
        field: whose value it is, for messages.

    Raises:
        ValueError: one line, if its source is another by now, it cannot be imported, or is no function.
    """
    home = find_own(name, field) if folder is None else Path(folder).resolve()
    module_name, _, function_name = name.partition(":")
    if _file_of(home / Path(*module_name.split("."))) is None or _source_of(home, module_name) != source:
        raise ValueError(
            f"{field}: the source of {name!r} has changed since it was planned; allowed: the same source; run again"
        )
    try:
        module = _import(module_name, home)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{field}: {name!r} cannot be imported ({type(error).__name__}: {reason}); allowed: {_ALLOWED}; try "
            f"python -c 'import {module_name}'"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(
            f"{field}: {module_name!r} has no function {function_name!r}; allowed: {_ALLOWED}; check its spelling"
        )
    made: Callable[..., Any] = function
    return made


def environment_fields(values: Any, name: str = "") -> list[tuple[str, str]]:
    """The dotted names and texts of all values that hold `${oc.env:NAME}`."""
    if isinstance(values, Mapping):
        prefix = f"{name}." if name else ""
        return [found for key, value in values.items() for found in environment_fields(value, f"{prefix}{key}")]
    if isinstance(values, list | tuple):
        return [
            found for number, value in enumerate(values) for found in environment_fields(value, f"{name}[{number}]")
        ]
    return [(name, values)] if isinstance(values, str) and _ENVIRONMENT.search(values) else []


def _from_environment(value: Any, field: str) -> Any:
    """A value with what the environment has for each `${oc.env:NAME}` or `${oc.env:NAME,default}`."""
    if isinstance(value, Mapping):
        return {key: _from_environment(item, f"{field}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_from_environment(item, f"{field}[{number}]") for number, item in enumerate(value)]
    return _ENVIRONMENT.sub(lambda match: _variable(match, field), value) if isinstance(value, str) else value


def _variable(match: re.Match[str], field: str) -> str:
    name, default = match["name"], match["default"]
    value = os.environ.get(name, default)
    if value is None:
        raise ValueError(
            f"{field}: the environment has no {name!r}; allowed: a name that it has; set it where stages run"
        )
    return value


def call_factory(factory: Callable[..., Any], kwargs: dict[str, Any], name: str, field: str) -> Any:
    """What a factory makes of `kwargs`, in which `${oc.env:NAME}` stands for what the environment has.

    Raises:
        ValueError: one line, if it raises an error, or the environment has no such name.
    """
    arguments = _from_environment(kwargs, f"{field.partition('.')[0]}.kwargs")
    try:
        return factory(**arguments)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{field}: {name!r} raised {type(error).__name__} for {kwargs} ({reason}); allowed: the arguments that it "
            f"takes; correct it or {field.partition('.')[0]}.kwargs"
        ) from error


def _file_of(path: Path) -> Path | None:
    """The file of the module at a path without suffix."""
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _source_of(folder: Path, module: str) -> str:
    parts = _parts(folder, module)
    return next(iter(parts.values())) if len(parts) == 1 else _sha256(json.dumps(sorted(parts.items())).encode())


def _parts(folder: Path, module: str) -> dict[str, str]:
    """A module, or the package it is in, and what these import from the same folder: hashes of their files by name."""
    parts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        files = _files_of(folder, waiting.pop())
        for name, own_files in files.items():
            if name in parts:
                continue
            parts[name] = _digest(folder, name, own_files)
            if not set(_INSTALLED) & set(folder.parts):
                waiting += [found for file in own_files for found in _imports_of(folder, file)]
    return parts


def _files_of(folder: Path, module: str) -> dict[str, list[Path]]:
    """The files of the module or package that has `module`, by its name; nothing if it lies elsewhere."""
    names = module.split(".")
    if (folder / names[0] / "__init__.py").is_file():
        return {names[0]: sorted((folder / names[0]).rglob("*.py"))}
    files = {".".join(names[:n]): _file_of(folder / Path(*names[:n])) for n in range(1, len(names) + 1)}
    return {name: [file] for name, file in files.items() if file is not None}


def _digest(folder: Path, name: str, files: list[Path]) -> str:
    top = folder / name
    if not (top / "__init__.py").is_file() or "." in name:
        return _sha256(b"".join(file.read_bytes() for file in files))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(top).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _imports_of(folder: Path, file: Path) -> Iterator[str]:
    """Full names of what a file imports, modules and what may be modules."""
    package = file.relative_to(folder).parent.parts
    state = file.stat()
    for level, name in _import_statements(file, state.st_size, state.st_mtime_ns):
        parents = package[: len(package) - level + 1] if level else ()
        yield ".".join((*parents, *(name.split(".") if name else ())))


@functools.cache
def _import_statements(file: Path, size: int, mtime_ns: int) -> tuple[tuple[int, str], ...]:
    """How many dots stand before the names that a file imports, and the names; a sweep asks again for each point."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return ()  # said when it is imported
    found = [(0, alias.name) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found += [(node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names]
    return tuple(found)


def _import(module: str, folder: Path) -> Any:
    """The module as its source is now: what was imported under its names from elsewhere, or before a change, is
    forgotten."""
    parts = _parts(folder, module)
    if not all(_is_current(name, folder, digest) for name, digest in parts.items()):
        tops = {name.split(".")[0] for name in parts}  # a parent holds its modules as attributes
        for name in [name for name in sys.modules if name.split(".")[0] in tops]:
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        imported = importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:  # for what the factory imports when it is called
            sys.path.append(str(folder))
    _digests.update(parts)
    return imported


def _is_current(name: str, folder: Path, digest: str) -> bool:
    """Whether what is imported under a name, if anything, are these files."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules:
        return True
    return file is not None and folder in Path(file).resolve().parents and _digests.get(name, digest) == digest
