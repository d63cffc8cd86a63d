"""What planning asks of networks, without torch. Each library's builder is a module of this room."""

import ast
import difflib
import hashlib
import importlib.util
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from spp.config import require
from spp.factory import find_factory
from spp.model_files import ModelFiles, find_model_files
from spp.models.config import (
    AVERAGES,
    BERT_KWARGS,
    KEPT_HEAD,
    OTHER_HEAD,
    PRETRAINED,
    TRAIN,
    ModelConfig,
    TeacherConfig,
)
from spp.models.pretrained import CONFIG_FILE, SINGLE_FILE, find_pretrained, require_transformers

_ENTRY_POINT = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
_FIELD_OF_MODEL = re.compile(r"\bmodel(?=\.(name|weights|kwargs|ema)\b|: )")
"""The group `model` in a message about a field of it, or about the whole network."""
_SOURCES = ("url", "hf_hub_id", "file", "state_dict")
"""Arguments that tell where pretrained weights are."""
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)


def read_model(values: Mapping[str, Any], cache: str | None = None) -> tuple[ModelConfig, dict[str, Any]]:
    """Check the group `model`.

    Args:
        values: the group.
        cache: folder in which to remember the hashes of large files, and for weights in another form.

    Returns:
        The config with the hash of given weights and of a factory's source, and how a worker finds both.

    Raises:
        ValueError: one line, if there is no such network, factory or file.
    """
    if values.get("tag") is not None:
        raise ValueError(
            f"model.tag: {values['tag']!r} is not allowed; allowed: what planning finds; say model.name=NAME.TAG"
        )
    config, runtime = ModelConfig.read(values, "model"), dict[str, Any]()
    if config.library == "causal":
        return _read_causal(replace(config, ema=False), cache)
    allowed = f"{KEPT_HEAD} with model.weights=train, where all is new"
    require(config.weights != TRAIN or config.head == KEPT_HEAD, "model.head", config.head, allowed, "leave it out")
    if config.library == "bert":
        return _read_bert(replace(config, ema=False))
    if config.factory is not None:
        require(config.name is None, "model.name", config.name, "null beside model.factory", "use model=own")
        factory = find_factory(config.factory, "model.factory")
        config = replace(config, source=factory.source)
        runtime["folder"] = str(factory.folder)
    elif config.library == "clip":
        require_transformers()
        allowed = "train, or the path of a checkpoint, such as model.safetensors of a folder of transformers"
        require(config.weights != PRETRAINED, "model.weights", config.weights, allowed, "name a file")
    else:
        _check_name(str(config.name))
        if config.weights == PRETRAINED and "." not in str(config.name):
            config = replace(config, tag=_pinned_tag(str(config.name)) or None)
    if config.weights not in (TRAIN, PRETRAINED):
        file = Path(config.weights).absolute()
        config = replace(config, weights=f"sha256:{sha256_of(file)}", ema=config.ema and _holds_average(file))
        runtime["weights_file"] = str(file)
        return config, runtime
    return replace(config, ema=False), runtime


def read_teacher(values: Mapping[str, Any]) -> tuple[ModelConfig | None, dict[str, Any]]:
    """Check the group `teacher`.

    Returns:
        The config with timm's tag or the hash of the weights, and how a worker finds them; None: the dense network.

    Raises:
        ValueError: one line, if timm has no such network, or there is no such file.
    """
    teacher = TeacherConfig.read(values, "teacher")
    if teacher.name is None:
        return None, {}
    is_of_timm = ModelConfig(name=teacher.name).library == "timm"
    require(is_of_timm, "teacher.name", teacher.name, "a model of timm", "leave it out")
    try:
        return read_model(teacher.plain())
    except ValueError as error:
        raise ValueError(in_words_of_teacher(error)) from None


def in_words_of_teacher(error: ValueError) -> str:
    """A line that refuses a network, as one that refuses it as a teacher."""
    line = str(error).replace(OTHER_HEAD, "a teacher of the same classes; give a checkpoint of one")
    return _FIELD_OF_MODEL.sub("teacher", line)


def _read_causal(config: ModelConfig, cache: str | None) -> tuple[ModelConfig, dict[str, Any]]:
    """The config of a language model with the hash of its weights, and how a worker finds them."""
    require_transformers()
    if config.weights == TRAIN:
        return config, {}
    require(not config.kwargs, "model.kwargs", config.kwargs, "{}: a pretrained model has its own", "leave it out")
    assert config.name is not None
    digest, runtime = find_pretrained(config.name, config.weights, None if cache is None else Path(cache))
    return replace(config, weights=f"sha256:{digest}"), runtime


def _read_bert(config: ModelConfig) -> tuple[ModelConfig, dict[str, Any]]:
    """The config of a BERT with the sizes and the hash of its weights, and where these lie."""
    require_transformers()
    if config.weights == TRAIN:
        return config, {}
    files = find_model_files(config.weights, "model.weights")
    kwargs = {**bert_sizes(files, "model.weights"), **config.kwargs}
    digest = files.digest((CONFIG_FILE, SINGLE_FILE), "model.weights")
    return replace(config, kwargs=kwargs, weights=f"sha256:{digest}"), {"folder": str(files.path)}


def bert_sizes(files: ModelFiles, field: str) -> dict[str, Any]:
    """What of the configuration of a BERT decides what it computes.

    Raises:
        ValueError: one line, if it is that of another architecture.
    """
    found = json.loads(files.read(CONFIG_FILE, field))
    kind, positions = found.get("model_type"), found.get("position_embedding_type", "absolute")
    if kind != "bert" or positions != "absolute":
        raise ValueError(
            f"{field}: {str(files.path)!r} holds the model_type {kind!r} with {positions} positions; allowed: bert "
            "with absolute positions; use the folder of such a model"
        )
    return {key: found[key] for key in BERT_KWARGS if found.get(key) is not None}


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


def _holds_average(file: Path) -> bool:
    """Whether a torch checkpoint speaks of a moving average; found without torch."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(name.encode()) >= 0 for name in AVERAGES)


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


def _timm_files() -> list[Path]:
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "models").glob("*.py"))


@cache
def _timm_names() -> frozenset[str]:
    """Names that timm.create_model takes, read from timm's files: importing timm, and torch with it, takes seconds."""
    names: set[str] = set()
    for file in _timm_files():
        text = file.read_text(encoding="utf-8")
        names.update(_ENTRY_POINT.findall(text))
    return frozenset(names) | _old_names()


@cache
def _old_names() -> frozenset[str]:
    """Names that timm takes for others."""
    names: set[str] = set()
    for file in _timm_files():
        for renamed in _RENAMED.findall(file.read_text(encoding="utf-8")):
            names.update(re.findall(r"^\s*['\"](\w+)['\"]:", renamed, re.MULTILINE))
    return frozenset(names)


def _pinned_tag(name: str) -> str:
    tag = default_tag(name)
    if tag is None:
        raise ValueError(
            f"model.name: {name!r} does not say which pretrained weights, and timm's files list none under it; "
            f"allowed: a name with a tag; say model.name={name}.TAG, or model.weights=train"
        )
    return tag


@cache
def default_tag(name: str) -> str | None:
    """The tag of the pretrained weights that timm loads for a name without one.

    Read from timm's files as the names are, by the rule of timm.models._registry.generate_default_cfgs.

    Returns:
        The tag, "" where the name is enough (an old name stands for one with a tag), None where there are no weights.
    """
    if name in _old_names():
        return ""
    for text in _texts_with(name):
        entries = [entry for entry in _pretrained_entries(text) if entry[0].partition(".")[0] == name]
        if entries:
            tagged = [(full.partition(".")[2], has_weights) for full, has_weights in entries]
            explicit = [tag for tag, has_weights in tagged if (has_weights and not tag) or tag.endswith("*")]
            with_weights = [tag for tag, has_weights in tagged if has_weights]
            return next((tag.strip("*") for tag in (*explicit, *with_weights)), None)
    return None


def _texts_with(name: str) -> list[str]:
    files = (file.read_text(encoding="utf-8") for file in _timm_files())
    return [text for text in files if re.search(rf"^def {name}\(", text, re.MULTILINE)]


@cache
def _pretrained_entries(text: str) -> list[tuple[str, bool]]:
    """Names with tags, in their order, that a file of timm lists, and whether there are weights for each."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Call):
                    found.append((key.value, _has_weights(value)))
    return found


def _has_weights(call: ast.Call) -> bool:
    sources = [*call.args[:1], *(word.value for word in call.keywords if word.arg in _SOURCES)]
    return any(not isinstance(source, ast.Constant) or bool(source.value) for source in sources)
