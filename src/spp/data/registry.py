"""Data sets by name; each is a module of spp.data.sources with `fingerprint` and `open_source` of an Access.

A data set whose files may lie in several forms lists them in FORMATS. One's own data come from a factory, see
spp.data.own.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack, get_args

from spp.config import require
from spp.data import sources as sources_package
from spp.data.captions import source as captions_source
from spp.data.captions import sources as caption_sources_package
from spp.data.captions import tokenizer as captions_tokenizer
from spp.data.config import FIXED_AUGMENT, DataConfig
from spp.data.files import Identity, limit_train
from spp.data.harness import find_harness as find_harness  # cli calls on this module alone
from spp.data.images.source import Access, OnError, Options, Source
from spp.data.sentences import sources as sentence_sources_package
from spp.data.sentences.source import ON_ERROR, Place, Sentences
from spp.data.sentences.tokens import find_tokenizer
from spp.data.split import num_held_out
from spp.data.text import sources as text_sources_package
from spp.data.text.source import Text
from spp.factory import find_factory

IMAGENET_TEST_IMAGES = 50_000
_LEARNED = "train"
"""What model.weights says of a network without given ones, whose tokens then are the words of the texts."""
MIN_SENTENCE_TOKENS = 8
"""Special tokens of a pair, and something of either text."""

_RUNTIME_FIELDS = (
    *("root", "download", "format", "on_error", "image_column", "label_column", "text_columns", "manifest", "captions"),
)


def sources() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sources_package.__path__)))


def text_sources() -> tuple[str, ...]:
    """Names of all texts."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(text_sources_package.__path__)))


def caption_sources() -> tuple[str, ...]:
    """Names of all sets of captioned images."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(caption_sources_package.__path__)))


def open_captions(config: DataConfig, runtime: Mapping[str, Any]) -> captions_source.Captions:
    """Captioned images, ready to read.

    Raises:
        ValueError: one line, if files are missing or an entry cannot be used.
    """
    module = importlib.import_module(f"{caption_sources_package.__name__}.{config.name}")
    root, file = (None if runtime[name] is None else Path(runtime[name]) for name in ("root", "captions"))
    access = captions_source.Access(
        root=root,
        file=file,
        on_error=runtime["on_error"],
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
    )
    captions: captions_source.Captions = module.open_captions(access)
    return captions


def sentence_sources() -> tuple[str, ...]:
    """Names of all sets of sentences."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(sentence_sources_package.__path__)))


def open_sentences(name: str, runtime: Mapping[str, Any]) -> Sentences:
    """A set of sentences, read and checked.

    Args:
        name: one of `sentence_sources()`.
        runtime: what `read_data` returned.

    Raises:
        ValueError: one line, if its files are not there, or a row cannot be used.
    """
    options: Any = {option: runtime[option] for option in ("on_error", "text_columns", "label_column")}
    place = Place(None if runtime["root"] is None else Path(runtime["root"]), options)
    opened: Sentences = importlib.import_module(f"{sentence_sources_package.__name__}.{name}").open_sentences(place)
    return opened


def open_text(name: str, root: str | None, field: str) -> Text:
    """A text, ready to read.

    Args:
        name: one of `text_sources()`.
        root: its folder; None for those that travel with Python.
        field: whose value the name is, for messages.

    Raises:
        ValueError: one line, if it is not known or its files are not there.
    """
    if name not in text_sources():
        raise ValueError(
            f"{field}: {name!r} is not a text; allowed: {', '.join(text_sources())}; use pydocs, or textfiles"
        )
    text: Text = importlib.import_module(f"{text_sources_package.__name__}.{name}").open_text(root)
    return text


def find_text(name: str, root: str | None, data: str) -> tuple[str | None, Identity]:
    """Where a text to calibrate with lies, and what it is.

    Args:
        name: one of `text_sources()`.
        root: its folder; None: the folder of its name in `data`, where the text has one.
        data: the folder of all data.

    Raises:
        ValueError: one line, as `open_text`.
    """
    folder = Path(root) if root is not None else Path(data, name)
    found = str(folder.absolute()) if root is not None or folder.is_dir() else None
    try:
        return found, {"name": name, **open_text(name, found, "calibration.name").fingerprint()}
    except ValueError as error:
        raise ValueError(str(error).replace("data.root", "calibration.root")) from None


def read_data(values: Mapping[str, Any], cache: str) -> tuple[DataConfig, dict[str, Any]]:
    """Check the group `data`; imports no torch and runs no code of a factory.

    Args:
        values: the group, with root, download, format, on_error, image_column, label_column and manifest (see
            `registered`) beside the fields of a DataConfig.
        cache: folder in which to remember the identities and the indices of large folders.

    Returns:
        The config, whose fingerprint is still to be found, and how a worker finds and reads the files.

    Raises:
        ValueError: one line, if a value is not allowed.
    """
    if "fingerprint" in values:
        raise ValueError("data.fingerprint: it is found when planning; allowed: nothing; remove it")
    config = DataConfig.read({name: value for name, value in values.items() if name not in _RUNTIME_FIELDS}, "data")
    if config.factory is not None:
        for name in ("name", "img_size"):
            value, remedy = getattr(config, name), "use data=own, and shape the samples in the factory"
            require(value is None, f"data.{name}", value, "null beside data.factory", remedy)
        factory = find_factory(config.factory, "data.factory")
        return replace(config, source=factory.source), {"folder": str(factory.folder)}
    require(not config.kwargs, "data.kwargs", config.kwargs, "{}, as they are for a data.factory", "leave it out")
    if config.name in text_sources():
        return _read_text(config, values)
    if config.name in caption_sources():
        return _read_captions(config, values)
    if config.name in sentence_sources():
        return _read_sentences(config, values)
    module = _module(config.name)
    if config.img_size is None:
        raise ValueError(f"data.img_size: None is not allowed for {config.name}; allowed: a number of pixels; use 224")
    root = str(Path(values["root"]).absolute()) if values.get("root") else None
    runtime: dict[str, Any] = {
        "root": root,
        "download": bool(values.get("download")),
        "format": values.get("format"),
        "on_error": values.get("on_error") or "fail",
        "cache": cache,
        "image_column": values.get("image_column"),
        "label_column": values.get("label_column"),
    }
    _access(module, root, {name: value for name, value in runtime.items() if name != "root"})
    return config, runtime


def _read_text(config: DataConfig, values: Mapping[str, Any]) -> tuple[DataConfig, dict[str, Any]]:
    if config.length is None:
        raise ValueError(f"data.length: None is not allowed for {config.name}; allowed: tokens of a window; use 512")
    return config, {"root": str(Path(values["root"]).absolute()) if values.get("root") else None}


def _read_captions(config: DataConfig, values: Mapping[str, Any]) -> tuple[DataConfig, dict[str, Any]]:
    for name in ("img_size", "length"):
        allowed = {"img_size": "a number of pixels", "length": "the most tokens of a caption"}[name]
        require(
            getattr(config, name) is not None,
            f"data.{name}",
            None,
            allowed,
            "use 77" if name == "length" else "use 224",
        )
    on_error = values.get("on_error") or "fail"
    require(on_error in get_args(OnError), "data.on_error", on_error, "fail, skip", "use fail")
    file = Path(values["captions"]).absolute() if values.get("captions") else None
    root = Path(values["root"]).absolute() if values.get("root") else None
    if file is not None and not file.is_file() and root is not None:
        file = root / str(values["captions"])
    if root is None and file is not None:
        root = file.parent
    runtime: dict[str, Any] = {
        "root": None if root is None else str(root),
        "captions": None if file is None else str(file),
        "on_error": on_error,
        "tokenizer": None,
    }
    if config.tokenizer is not None:
        folder = Path(config.tokenizer).absolute()
        config = replace(config, tokenizer=captions_tokenizer.identity_of(folder))
        runtime["tokenizer"] = str(folder)
    return config, runtime


def _read_sentences(config: DataConfig, values: Mapping[str, Any]) -> tuple[DataConfig, dict[str, Any]]:
    if config.length is None or config.length < MIN_SENTENCE_TOKENS:
        allowed = f"{MIN_SENTENCE_TOKENS} or more for {config.name}"
        raise ValueError(f"data.length: {config.length} is not allowed; allowed: {allowed}; use 128")
    on_error, columns = values.get("on_error") or "fail", values.get("text_columns")
    require(on_error in ON_ERROR, "data.on_error", on_error, ", ".join(ON_ERROR), "use fail")
    is_list = columns is None or (isinstance(columns, list) and len(columns) in (1, 2))
    require(is_list, "data.text_columns", columns, "null, or a list of one or two columns", "use [text]")
    runtime = {
        "root": str(Path(values["root"]).absolute()) if values.get("root") else None,
        "on_error": on_error,
        "text_columns": columns,
        "label_column": values.get("label_column"),
        "tokenizer": None,
    }
    if config.tokenizer in (None, _LEARNED):
        return replace(config, tokenizer=None), runtime
    assert config.tokenizer is not None
    digest, files = find_tokenizer(config.tokenizer)
    return replace(config, tokenizer=f"sha256:{digest}"), {**runtime, "tokenizer": str(files.path)}


def fingerprint(config: DataConfig, runtime: Mapping[str, Any]) -> Identity:
    """Identity of a data set's content, free of paths and times; quick: decodes no image, imports no torch.

    Returns:
        {"name": ..., "splits": {"train": count, "test": count}, "sha256": hash of the manifest}, and with
        on_error=skip {"on_error": "skip"}, with named columns {"columns": [image, label]}.
        The same images in another form have another manifest. Of one's own data
        {"name": the factory}: what it makes is known by its source alone.

    Raises:
        ValueError: if the folder is missing, or its content is not the data set's.
    """
    if config.factory is not None:
        return {"name": config.factory}
    if config.name in text_sources():
        return {"name": config.name, **open_text(config.name, runtime["root"], "data.name").fingerprint()}
    if config.name in caption_sources():
        identity = {"name": config.name, **open_captions(config, runtime).fingerprint(config.num_train)}
        return identity if runtime["on_error"] == "fail" else {**identity, "on_error": runtime["on_error"]}
    if config.name in sentence_sources():
        found = open_sentences(config.name, runtime).fingerprint()
        # As for images: the first num_train rows of train are what there is.
        found["splits"]["train"] = limit_train(found["splits"]["train"], config.num_train)
        return {"name": config.name, **found}
    options: Any = {name: value for name, value in runtime.items() if name != "root"}
    return identify(str(config.name), runtime["root"], num_train=config.num_train, **options)


@dataclass(frozen=True)
class Form:
    """What networks must know of a data set of images; `num_classes` of folders of images is that of ImageNet."""

    in_chans: int
    num_classes: int | None
    vocab_size: int | None = None


_FORMS = {
    "digits": Form(1, 10),
    "cifar10": Form(3, 10),
    "imagefolder": Form(3, 1000),
    "digit_scenes": Form(1, None, vocab_size=20),
    "karpathy": Form(3, None),
    "openmoji": Form(3, None),
}


def form_of(config: Mapping[str, Any]) -> Form | None:
    """The form of a data set by its config as a spec holds it; None where only opening the data tells."""
    return None if config.get("factory") is not None else _FORMS.get(str(config.get("name")))


def registered(config: DataConfig, runtime: Mapping[str, Any], manifest: Mapping[str, Any]) -> Identity:
    """`fingerprint` of data that are not here, by what is registered of them.

    Args:
        config: of the data set.
        runtime: what `read_data` returned.
        manifest: {"splits": {"train": count, "test": count}, "sha256": hash}; without the hash the keys of a plan are
            not those that it will have where the data are.

    Raises:
        ValueError: one line, if the manifest is not of this form.
    """
    splits, sha256 = manifest.get("splits"), manifest.get("sha256")
    has_counts = isinstance(splits, Mapping) and all(isinstance(splits.get(name), int) for name in ("train", "test"))
    allowed = "splits: {train: count, test: count}, and sha256: hash, where it is known"
    require(has_counts, "data.manifest", dict(manifest), allowed, "copy it from spp plan --json where the data are")
    assert isinstance(splits, Mapping)
    num_used = limit_train(splits["train"], config.num_train)
    counts = {"train": num_used, **{name: splits[name] for name in ("val", "test") if name in splits}}
    identity: Identity = {"name": config.name, "splits": counts, "sha256": sha256}
    columns = [runtime.get("image_column"), runtime.get("label_column")]
    if any(columns):
        identity["columns"] = columns
    return identity if runtime.get("on_error") == "fail" else {**identity, "on_error": runtime.get("on_error")}


def identify(name: str, root: str | Path | None, **options: Unpack[Options]) -> Identity:
    """`fingerprint` of a data set by its name.

    Args:
        name: one of `sources()`.
        root: folder of the data set; None for those that travel with a package.
        options: how it is to be read, see spp.data.images.source.Access.

    Raises:
        ValueError: if the name is unknown, the folder is missing, or its content is not the data set's.
    """
    module = _module(name)
    access = _access(module, root, options)
    try:
        identity: Identity = {"name": name, **module.fingerprint(access)}
    except OSError as error:
        if root is None or not Path(error.filename or "").is_relative_to(root):
            raise
        raise ValueError(
            f"data.root: {str(error.filename)!r} cannot be read ({error.strerror}); allowed: files that can be "
            "read, and stay; check the path"
        ) from None
    if access.columns:
        identity["columns"] = access.columns
    return identity if access.on_error == "fail" else {**identity, "on_error": access.on_error}


def open_source(name: str, root: str | Path | None, **options: Unpack[Options]) -> Source:
    """A data set, ready to read; arguments and errors as in `identify`."""
    module = _module(name)
    source: Source = module.open_source(_access(module, root, options))
    return source


def fixed_augment(augment: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe's `augment` also changes samples that are only looked at; a key set to null says nothing."""
    return {name: augment[name] for name in FIXED_AUGMENT if augment.get(name) is not None}


def num_train_samples(config: DataConfig) -> int | None:
    """Samples that an epoch draws from: train less the validation split; None where only opening them tells."""
    splits = config.fingerprint.get("splits")
    if splits is None:
        return None
    # Captions call a validation of their own "val", sentences "validation".
    has_own_validation = "val" in splits or "validation" in splits
    return int(splits["train"]) - (0 if has_own_validation else num_held_out(splits["train"], config.val_fraction))


def display_name(config: DataConfig) -> str:
    """What reports call the data set: of all folders of images, published numbers are of ImageNet-1k."""
    if config.factory is not None:
        return config.factory.partition(":")[0]
    if "dataset" in config.fingerprint:
        return str(config.fingerprint["dataset"])
    is_imagenet = config.name == "imagefolder" and config.fingerprint["splits"]["test"] == IMAGENET_TEST_IMAGES
    return "imagenet" if is_imagenet else str(config.name)


def _access(module: ModuleType, root: str | Path | None, options: Mapping[str, Any]) -> Access:
    given: dict[str, Any] = {**options}
    if given.get("cache") is not None:
        given["cache"] = Path(given["cache"])
    access = Access(root=None if root is None else Path(root), **given)
    formats: tuple[str, ...] = getattr(module, "FORMATS", ())
    if access.format is not None and access.format not in formats:
        name = module.__name__.rpartition(".")[2]
        allowed = ", ".join(("null", *formats))
        raise ValueError(
            f"data.format: {access.format!r} is not a form of {name}; allowed: {allowed}; use null to have it found out"
        )
    if access.columns and "parquet" not in formats:
        raise ValueError(
            f"data.image_column, data.label_column: {access.columns} are not allowed for "
            f"{module.__name__.rpartition('.')[2]}; allowed: null; use data=imagenet for tables of one's own"
        )
    if access.on_error not in get_args(OnError):
        raise ValueError(f"data.on_error: {access.on_error!r} is not allowed; allowed: fail, skip; use fail")
    return access


def _module(name: str | None) -> ModuleType:
    if name not in sources():
        allowed = ", ".join((*sources(), *text_sources(), *caption_sources()))
        allowed = ", ".join((*sources(), *text_sources(), *sentence_sources()))
        raise ValueError(
            f"data.name: {name!r} is not known; allowed: {allowed}; use one of them or add spp/data/sources/{name}.py"
        )
    return importlib.import_module(f"{sources_package.__name__}.{name}")
