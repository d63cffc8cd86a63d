"""Networks as they are named on a command line: a folder, timm:NAME, or my.module:make_model."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import nn

from spp.deploy import transformers_folder
from spp.deploy.folder import ORIGIN_FILE, load, read_origin
from spp.factory import call_factory, find_factory, load_factory
from spp.models.pretrained import require_transformers
from spp.plan.numbers import format_size
from spp.structure import modeling_spp
from spp.structure.modeling_spp import CONFIG_FILE, read_config
from spp.text import reason_of

TIMM = "timm:"
ALLOWED = f"the folder of a member or of a model of transformers, {TIMM}NAME, or my.module:make_model"


@dataclass(frozen=True)
class NamedNetwork:
    """A network on the CPU in evaluation mode.

    Attributes:
        name: what tables call it.
        network: of a member the compact one.
        dense: what a member was cut from, with weights at random; None: the network is dense itself.
        dense_name: what tables call that.
        dense_config: what it is built from; two members with an equal one were cut from the same network.
        origin: what is known of where a member comes from: method, budget.
    """

    name: str
    network: nn.Module
    dense: nn.Module | None = None
    dense_name: str = ""
    dense_config: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def open_network(word: str, *, has_weights: bool = False) -> NamedNetwork:
    """The network of a word; one of timm or of a factory has weights at random.

    Args:
        word: see `ALLOWED`.
        has_weights: whether one of transformers gets the weights of its folder, or some at random, too.

    Raises:
        ValueError: one line, if there is no such folder, network or factory.
    """
    if word.startswith(TIMM):
        name = word.removeprefix(TIMM)
        try:
            return NamedNetwork(name, timm.create_model(name).eval())
        except Exception as error:
            reason = reason_of(error)
            raise ValueError(
                f"MODEL: {word!r} cannot be built ({reason}); allowed: {ALLOWED}; see timm.list_models()"
            ) from None
    where = Path(word)
    stock = _stock_config(where / CONFIG_FILE)
    if stock is not None:
        return NamedNetwork(where.resolve().name, _of_transformers(where, stock, has_weights).eval())
    if (where / CONFIG_FILE).is_file():
        return _member(where)
    if is_factory(word):
        return NamedNetwork(word, _made_by_factory(word).cpu().eval())
    raise ValueError(f"MODEL: {word!r} is no such network; allowed: {ALLOWED}; correct it")


def is_factory(word: str) -> bool:
    """Whether a word names a factory, my.module:make_model."""
    return ":" in word and os.sep not in word and not word.startswith(TIMM)


def _member(folder: Path) -> NamedNetwork:
    """What spp wrote, beside what it was cut from."""
    name, network = folder.name or folder.resolve().name, load(folder)
    known = read_origin(folder) if (folder / ORIGIN_FILE).is_file() else {}
    origin: dict[str, Any] = {fact: known[fact] for fact in ("method", "budget") if fact in known}
    if transformers_folder.is_transformers_folder(folder):
        dense = transformers_folder.dense_of(folder)
        identity = "" if dense is None else json.dumps(_sizes(dense), sort_keys=True)
        return NamedNetwork(name, network, dense, _name_by_size(network, dense), identity, origin)
    config = read_config(folder)
    dense = modeling_spp.build({**config, "spp": {**config["spp"], "modules": {}, "tokens": {}}}).eval()
    built_from = {name: config.get(name) for name in ("architecture", "model_args", "num_classes")}
    built_from["factory"] = config["spp"].get("factory")
    identity = json.dumps(built_from, sort_keys=True)
    return NamedNetwork(name, network, dense, f"{config['architecture']}, dense", identity, origin)


def _name_by_size(network: nn.Module, dense: nn.Module | None) -> str:
    """CLIP and BERT have no names of their sizes: CLIP 428M, dense."""
    num_params = 0 if dense is None else sum(weight.numel() for weight in dense.parameters())
    return f"{transformers_folder.kind_of(network)} {format_size(float(f'{num_params:.3g}'))}, dense"


def _sizes(network: nn.Module) -> dict[str, list[int]]:
    """The shapes of all weights by name."""
    return {name: list(weight.shape) for name, weight in network.state_dict().items()}


def _stock_config(file: Path) -> dict[str, Any] | None:
    """The configuration of a folder that transformers wrote, None of another."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and "model_type" in config and "spp" not in config else None


def _of_transformers(folder: Path, config: dict[str, Any], has_weights: bool) -> nn.Module:
    """Of the class that the folder names, as stock transformers has it."""
    require_transformers()
    import transformers

    name = (config.get("architectures") or [""])[0]
    stock: nn.Module
    try:
        kind = getattr(transformers, name)
        if has_weights:
            stock, about = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
            if about["missing_keys"]:  # these transformers would draw
                raise ValueError(f"its files lack {sorted(about['missing_keys'])[0]!r}")
        else:
            stock = kind(transformers.AutoConfig.from_pretrained(folder))
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"MODEL: {str(folder)!r} cannot be built as {name!r} ({reason}); allowed: {ALLOWED}; take another folder"
        ) from None
    return stock


def _made_by_factory(word: str) -> nn.Module:
    factory = find_factory(word, "MODEL")
    made = call_factory(load_factory(word, str(factory.folder), factory.source, "MODEL"), {}, word, "MODEL")
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise ValueError(f"MODEL: {word!r} returned a {kind}; allowed: a torch.nn.Module; return one")
    return made
