"""What planning asks of networks, without torch. Each library's builder is a module of this room."""

import difflib
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from spp.factory import find_factory
from spp.models.config import PRETRAINED, TRAIN, ModelConfig

_ENTRY_POINT = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)

MAX_DEPTH, MAX_WIDTH = 1000, 100_000
"""More blocks, and larger other numbers in the arguments of a constructor, than any network has."""


def read_model(values: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Any]]:
    """Check the group `model`.

    Returns:
        The config with the hash of given weights and of a factory's source, and how a worker finds both.

    Raises:
        ValueError: one line, if there is no such network, factory or file.
    """
    config, runtime = ModelConfig.read(values, "model"), dict[str, Any]()
    if config.factory is not None:
        factory = find_factory(config.factory, "model.factory")
        config = replace(config, name=None, source=factory.source)
        runtime["folder"] = str(factory.folder)
    else:
        _check_name(str(config.name))
        _check_sizes(config.kwargs)
    if config.weights not in (TRAIN, PRETRAINED):
        file = Path(config.weights).absolute()
        config = replace(config, weights=f"sha256:{sha256_of(file)}")
        runtime["weights_file"] = str(file)
    return config, runtime


def sha256_of(file: Path) -> str:
    """Hash of a checkpoint.

    Raises:
        ValueError: if it is no file.
    """
    if not file.is_file():
        raise ValueError(
            f"model.weights: {str(file)!r} is no file; allowed: train, pretrained, or the path of a checkpoint; "
            "check the path"
        )
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@cache
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Hash of a file as it was when it had this size and this time of change: a sweep asks again for each point."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_name(name: str) -> None:
    known = _timm_names()
    if name.partition(".")[0] in known:
        return
    close = difflib.get_close_matches(name, sorted(known), n=3)
    raise ValueError(
        f"model.name: {name!r} is no timm model; allowed: a ViT, DeiT or Swin of timm"
        f"{' such as ' + ', '.join(close) if close else ''}; use model.name=deit_tiny_patch16_224"
    )


def _check_sizes(kwargs: Mapping[str, Any]) -> None:
    """Refuse numbers that no network has: making it would take all memory, or days."""
    for name, value in kwargs.items():
        most = MAX_DEPTH if name.startswith("depth") else MAX_WIDTH
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and abs(number) > most:
                raise ValueError(
                    f"model.kwargs.{name}: {number} is not allowed; allowed: up to {most}; use a smaller one"
                )


@cache
def _timm_names() -> frozenset[str]:
    """Names that timm.create_model takes, read from timm's files: importing timm, and torch with it, takes seconds."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    names: set[str] = set()
    for file in (Path(spec.origin).parent / "models").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        names.update(_ENTRY_POINT.findall(text))
        for renamed in _RENAMED.findall(text):
            names.update(re.findall(r"^\s*['\"](\w+)['\"]:", renamed, re.MULTILINE))
    return frozenset(names)
