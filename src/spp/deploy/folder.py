"""The folder of a member: weights, a config.json with timm's keys, the file that loads both without spp, a card."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import timm
import torch
from safetensors.torch import save_file
from timm.models import get_model_args, get_model_input_config
from torch import Tensor, nn

from spp import __version__
from spp.deploy import transformers_folder
from spp.deploy.card import MeasuredValue, model_card
from spp.deploy.llama_folder import is_llama_folder, largest_difference, llama_in, load_llama, write_llama
from spp.factory import find_own
from spp.models.finite import first_not_finite
from spp.stages.member import FILE_NAME as MEMBER_FILE
from spp.stages.member import load_member
from spp.store import git
from spp.structure import modeling_spp
from spp.structure.compact import compact
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs, module_sizes
from spp.structure.inputs import call
from spp.structure.modeling_spp import CONFIG_FILE, FORMAT, WEIGHTS_FILE
from spp.structure.tokens import kept_tokens
from spp.structure.wrappers import unwrapped

MODELING_FILE, CARD_FILE, ORIGIN_FILE = "modeling_spp.py", "README.md", "origin.json"
TOLERANCE = 1e-5
"""Largest difference of any output of the loaded folder, relative to the largest output."""

_HUGGING_FACE = {
    "model_type": "spp",
    "architectures": ["SppForImageClassification"],
    "auto_map": {
        "AutoConfig": "modeling_spp.SppConfig",
        "AutoModelForImageClassification": "modeling_spp.SppForImageClassification",
    },
}


@dataclass(frozen=True, kw_only=True)
class MemberFacts:
    """What is known of a member beside its network.

    Attributes:
        class_names: in the order of the outputs; None where they are not known.
        preprocessing: how images become inputs, in timm's words (input_size, mean, std, interpolation, crop_pct).
        factory: my.module:make_model where the dense network is one's own; None for timm's.
        factory_kwargs: its arguments.
        factory_folder: where its file lies, if Python does not know; the written folder does not say it.
        licence: of the weights that it was cut from, where known.
        dense: cost of the network that it was cut from, where known.
        measured: what it was measured to do, for the card.
        origin: further entries of origin.json: keys of stages, the command, the budget, whose weights.
        tokenizer_files: what makes tokens of texts, by name of the file.
    """

    class_names: Sequence[str] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None
    factory_kwargs: Mapping[str, Any] = field(default_factory=dict)
    factory_folder: str | None = None
    licence: str | None = None
    dense: Cost | None = None
    measured: Sequence[MeasuredValue] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


@overload
def save_member(small: nn.Module, folder: str | Path, /, *, force: bool = False, **facts: Any) -> Path: ...
@overload
def save_member(
    model: nn.Module, masks: Mapping[str, Tensor], folder: str | Path, /, *, force: bool = False, **facts: Any
) -> Path: ...
def save_member(model: nn.Module, /, *where: Any, force: bool = False, **facts: Any) -> Path:
    """Write the folder of a member, for `load` and for those who do not have spp.

        spp.save_member(model, masks, "small", class_names=["cat", "dog"])
        spp.save_member(spp.compact(model, masks), "small")

    Args:
        model: a compact network; or, with masks, the dense one, which is left unchanged. One of timm, of transformers
            (ViT, DeiT, DINOv2, CLIP, BERT, Llama), or of a factory.
        where: the masks, if the network is dense, and the folder.
        force: take the place of a folder that holds another member.
        facts: fields of `MemberFacts`. Without preprocessing it is what timm says of the network.

    Returns:
        The folder.

    Raises:
        ValueError: one line, if the folder is in use, the weights are not finite, a field does not exist, or the
            network cannot be built again from its name.
    """
    *given, folder = where
    unknown = sorted(set(facts) - set(MemberFacts.__dataclass_fields__))
    if unknown or len(given) > 1:
        what = f"{unknown[0]}: it" if unknown else f"{len(given)} arguments before the folder: this"
        allowed = ", ".join(MemberFacts.__dataclass_fields__)
        raise ValueError(f"save_member: {what} is not allowed; allowed: masks, the folder, force, {allowed}")
    network = unwrapped(model)
    if given:
        facts.setdefault("dense", count_cost(network, example_inputs(network)))
        network = compact(network, given[0])
    write_folder(Path(folder), network, MemberFacts(**facts), force=force)
    return Path(folder)


def write_folder(folder: Path, small: nn.Module, facts: MemberFacts, *, force: bool = False) -> float:
    """Write the folder of a compact network, whole or not at all; its outputs are compared with the network's.

    Returns:
        Their largest difference, relative to the largest output.

    Raises:
        ValueError: see `save_member`.
    """
    refuse_used(folder, force)
    bad = first_not_finite(small)
    if bad is not None:
        raise ValueError(f"save_member: {bad!r} is not finite; allowed: finite weights; use a smaller lr")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}-") as made:
        partial = Path(made) / "folder"
        partial.mkdir()
        llama = llama_in(small)
        if llama is not None:
            _write_origin(partial, small, facts, write_llama(partial, llama))
            difference = _within_tolerance(largest_difference(load_llama(partial), llama), "take one of spp.compact")
        else:
            _write(partial, small, facts)
            with _on_path(facts.factory_folder):
                difference = _compare(partial, small)
        if folder.exists():
            os.replace(folder, Path(made) / "before")
        os.replace(partial, folder)
    return difference


def load(where: str | Path, *, runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """The network of a member's folder, in evaluation mode, on the CPU: a plain torch module.

    Args:
        where: the folder that `spp extract` or `save_member` wrote; or the file of a member in a store.
        runtime: of a file in a store: where to find the factory of one's own network; None: on Python's path.

    Raises:
        ValueError: one line, if a file is missing or is not the one that was written, or names a factory that is not
            the user's own code.
    """
    where = Path(where)
    if where.is_file() or (where / MEMBER_FILE).is_file():
        return load_member(where, runtime=runtime)
    check_folder(where)
    if transformers_folder.is_transformers_folder(where):
        from spp.structure import modeling_transformers

        return modeling_transformers.load(where)
    if is_llama_folder(where):
        return load_llama(where)
    factory = modeling_spp.read_config(where)["spp"].get("factory")
    if factory is not None:
        find_own(factory, f"{CONFIG_FILE}: spp.factory")
    return modeling_spp.load(where)


def check_folder(folder: Path) -> None:
    """Compare the files of a folder with the hashes in its origin.json.

    Raises:
        ValueError: one line, for the first that is missing or was altered.
    """
    origin = read_origin(folder)
    for name, digest in origin["sha256"].items():
        file = folder / name
        problem = "is missing" if not file.is_file() else "" if _sha256(file) == digest else "was altered"
        if problem:
            raise ValueError(
                f"folder: {str(file)!r} {problem}; allowed: the file that was written with {ORIGIN_FILE}; copy it again"
            )


def read_origin(folder: Path) -> dict[str, Any]:
    """The record of where a folder's member comes from.

    Raises:
        ValueError: one line, if it is missing or broken.
    """
    file = folder / ORIGIN_FILE
    try:
        origin = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ValueError(
            f"folder: {str(file)!r} cannot be read ({reason}); allowed: a folder that spp wrote; copy it again"
        ) from None
    if not isinstance(origin, dict) or not isinstance(origin.get("sha256"), dict):
        raise ValueError(f"folder: {str(file)!r} has no hashes; allowed: a folder that spp wrote; copy it again")
    return origin


def push_to_hub(folder: str | Path, repo: str, *, token: str | None = None, private: bool = True) -> str:
    """Upload the folder of a member to the Hugging Face Hub; returns its address.

    Args:
        folder: what `save_member` or `spp extract` wrote.
        repo: OWNER/NAME; made if it is not there.
        token: of an account that may write; None: the one that `hf auth login` or $HF_TOKEN left.
        private: of a repository that is made.

    Raises:
        ValueError: one line, without a token, or if the folder is not whole.
    """
    from huggingface_hub import HfApi, get_token

    check_folder(Path(folder))
    token = token or get_token()
    if token is None:
        raise ValueError("token: there is none; allowed: that of an account which may write; set HF_TOKEN")
    api = HfApi(token=token)
    api.create_repo(repo, exist_ok=True, private=private)
    return str(api.upload_folder(repo_id=repo, folder_path=str(folder)))


def refuse_used(folder: Path, force: bool) -> None:
    """Refuse a folder that holds something, unless it is a member that may be overwritten.

    Raises:
        ValueError: one line.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / ORIGIN_FILE).is_file():
        raise ValueError(
            f"--out: {str(folder)!r} holds something else than a member; allowed: a folder that is empty or not there; "
            "choose another"
        )
    if not force:
        raise ValueError(f"--out: {str(folder)!r} holds a member; allowed: a new folder; choose another or add --force")


def _write(folder: Path, small: nn.Module, facts: MemberFacts) -> None:
    if transformers_folder.is_written(small):
        names = transformers_folder.write(folder, small, facts.class_names)
        origin = _write_origin(folder, small, facts, names)
        card = transformers_folder.card(
            small, origin, facts.measured, facts.licence, facts.preprocessing, bool(facts.tokenizer_files)
        )
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        return
    config = _config(small, facts)  # first: it refuses what cannot be built again
    weights = {name: value.detach().cpu().contiguous() for name, value in small.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shutil.copyfile(str(modeling_spp.__file__), folder / MODELING_FILE)
    origin = _write_origin(folder, small, facts, (WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE))
    card = model_card(config, origin, facts.measured, facts.licence)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _write_origin(folder: Path, small: nn.Module, facts: MemberFacts, names: Sequence[str]) -> dict[str, Any]:
    """Write where the member comes from, with the hashes of these files and of the tokenizer's, which it writes."""
    for name, content in facts.tokenizer_files.items():
        (folder / name).write_bytes(content)
    cost = count_cost(small, example_inputs(small))
    origin: dict[str, Any] = {
        "spp": __version__,
        "commit": (git.describe() or {}).get("commit"),
        "macs": cost.macs,
        "params": cost.params,
        **({} if facts.dense is None else {"dense": {"macs": facts.dense.macs, "params": facts.dense.params}}),
        **facts.origin,
        "sha256": {name: _sha256(folder / name) for name in (*names, *facts.tokenizer_files)},
    }
    (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return origin


def _config(small: nn.Module, facts: MemberFacts) -> dict[str, Any]:
    """What config.json says: timm's keys, those of transformers, and the sizes of each module under "spp"."""
    own: dict[str, Any] = {"format": FORMAT, "modules": module_sizes(small)}
    if tokens := kept_tokens(small):
        own["tokens"] = tokens
    names, of_transformers = facts.class_names, _class_of_transformers(small)
    if of_transformers is not None:
        own["transformers"] = of_transformers
        values = _values_of_transformers(small)
        config = {**_plain_config(small, facts), "architecture": of_transformers, "model_args": values}
        names = _labels_of(small) if names is None else names
    elif facts.factory is not None:
        own["factory"] = facts.factory
        arguments = dict(facts.factory_kwargs)
        config = {**_plain_config(small, facts), "architecture": facts.factory, "model_args": arguments}
    else:
        config = _timm_config(small, facts)
    if names is not None and len(names) != config["num_classes"]:
        raise ValueError(
            f"class_names: {len(names)} names are not allowed for {config['num_classes']} outputs; allowed: one each"
        )
    labels = [f"LABEL_{number}" for number in range(config["num_classes"])] if names is None else list(names)
    return {
        **config,
        **({} if names is None else {"label_names": list(names)}),
        **_HUGGING_FACE,
        "id2label": {str(number): name for number, name in enumerate(labels)},
        "label2id": {name: number for number, name in enumerate(labels)},
        "spp": own,
    }


@torch.no_grad()
def _plain_config(small: nn.Module, facts: MemberFacts) -> dict[str, Any]:
    """Of the same keys those that say what goes in and out, for a network that is not timm's."""
    (example,) = example_inputs(small).values()
    return {
        "num_classes": call(small.eval(), example).shape[-1],
        "pretrained_cfg": {"input_size": list(example.shape[1:]), **facts.preprocessing},
    }


def _class_of_transformers(small: nn.Module) -> str | None:
    """The name of its class, where transformers can build the dense network again from its configuration alone."""
    if not type(small).__module__.startswith("transformers.models."):
        return None
    config: Any = small.config
    with torch.device("meta"):
        stock: nn.Module = type(small)(config)
    return type(small).__name__ if stock.state_dict().keys() == small.state_dict().keys() else None


def _values_of_transformers(small: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(small.config.to_json_string(use_diff=True))
    return {name: value for name, value in values.items() if name not in ("dtype", "_name_or_path")}


def _labels_of(small: Any) -> list[str] | None:
    """The classes as the configuration names them; None where it does not."""
    labels = [small.config.id2label[number] for number in range(small.config.num_labels)]
    is_named = hasattr(small, "num_labels") and labels != [f"LABEL_{number}" for number in range(len(labels))]
    return labels if is_named else None


def _timm_config(small: nn.Module, facts: MemberFacts) -> dict[str, Any]:
    """timm's keys, as timm.models.save_config_for_hf writes them."""
    published = getattr(small, "pretrained_cfg", None)
    if published is None or "architecture" not in published:
        raise ValueError(
            f"model: a {type(small).__name__} that timm.create_model has not made is not allowed; allowed: that, a "
            "class of transformers, or factory='my.module:make_model' with what makes the dense network; name it"
        )
    network: Any = small
    given = get_model_input_config(small)
    kept = ("interpolation", "crop_pct", "crop_mode", "mean", "std", "classifier", "license")
    preprocessing = {"input_size": given["input_size"], **facts.preprocessing}
    described = {
        **{name: published[name] for name in kept if name in published},
        **preprocessing,
        "num_classes": network.num_classes,
        "first_conv": given["first_conv"],
        "fixed_input_size": given["fixed_input_size"],
        "pool_size": None,
        "custom_load": False,
    }
    if facts.licence is None:
        described.pop("license", None)  # timm's is that of its own weights, which these need not be
    return {
        "architecture": published["architecture"],
        "num_classes": network.num_classes,
        "num_features": network.num_features,
        "model_args": _model_args(small, published["architecture"]),
        "pretrained_cfg": {**described, **({} if facts.licence is None else {"license": facts.licence})},
    }


def _model_args(small: nn.Module, architecture: str) -> dict[str, Any]:
    """The arguments of timm.create_model: those of the compact network where timm's can make it (equal MLPs, and
    attentions left whole), so that plain timm loads the folder; else those of the dense one."""
    given: dict[str, Any] = get_model_args(small)
    hidden = {sizes["hidden"] for sizes in module_sizes(small).values() if "hidden" in sizes}
    width = getattr(small, "embed_dim", None)
    if len(hidden) != 1 or not isinstance(width, int):
        return given
    arguments = {**given, "mlp_ratio": hidden.pop() / width}
    try:
        with torch.device("meta"):
            stock = timm.create_model(architecture, **arguments)
    except TypeError:  # an architecture that does not take it
        return given
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (stock, small)]
    return arguments if shapes[0] == shapes[1] else given


@torch.no_grad()
def _compare(folder: Path, small: nn.Module) -> float:
    """Load what was written, and compare its outputs on random inputs.

    Raises:
        ValueError: one line, if it is not the same network.
    """
    if transformers_folder.is_written(small):
        difference = transformers_folder.difference(folder, small)
        return _within_tolerance(difference, "keep its configuration as transformers has it")
    remedy = "build it by timm.create_model with all its arguments, or give factory="
    try:
        loaded = modeling_spp.load(folder)
    except ValueError as error:
        raise ValueError(f"model: it cannot be built again ({error}); allowed: a network of timm; {remedy}") from None
    (example,) = example_inputs(small).values()
    inputs = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    was_training = small.training
    expected = call(small.eval(), inputs.to(example.device, example.dtype)).cpu()
    small.train(was_training)
    found = call(loaded.to(example.dtype), inputs.to(example.dtype))
    difference = (found - expected).abs().max() / expected.abs().max()
    return _within_tolerance(float(difference), remedy)


def _within_tolerance(difference: float, remedy: str) -> float:
    if not difference <= TOLERANCE:
        raise ValueError(
            f"model: built again its outputs differ by {difference:.1e}; allowed: {TOLERANCE:.0e} of the largest; "
            f"{remedy}"
        )
    return difference


@contextmanager
def _on_path(folder: str | None) -> Iterator[None]:
    """Let Python find what lies in a folder."""
    before = list(sys.path)
    sys.path[:0] = [] if folder is None else [folder]
    try:
        yield
    finally:
        sys.path[:] = before


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
