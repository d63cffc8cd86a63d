"""A member as it is named on a command line: the folder of one, or its file in a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg
from torch import nn

from spp.deploy.card import MeasuredValue
from spp.deploy.facts import MemberFacts
from spp.deploy.folder import load, read_origin
from spp.deploy.quality import OpenedData
from spp.models.build import config_of
from spp.models.config import PRETRAINED
from spp.models.given import folder_of
from spp.models.pretrained import TOKENIZER_FILES
from spp.stages.member import describe_member, load_member
from spp.structure.cost import Cost
from spp.structure.modeling_spp import CONFIG_FILE, read_config


@dataclass(frozen=True)
class Member:
    """A member and what is known of it.

    Attributes:
        network: in evaluation mode, on the CPU.
        facts: what its folder says.
        inputs: what its inputs are called: "images".
        outputs: what its outputs are called: "logits".
    """

    network: nn.Module
    facts: MemberFacts
    inputs: str = "images"
    outputs: str = "logits"


def open_member(where: Path, runtime: Mapping[str, Any] | None = None, data: OpenedData | None = None) -> Member:
    """Load a member from its folder, or from its file in a store.

    Args:
        where: that.
        runtime: see `facts_of`.
        data: see `facts_of`.

    Raises:
        ValueError: one line, if it is damaged or no member.
    """
    if not (where / CONFIG_FILE).is_file():
        header = describe_member(where)
        architecture = header["architecture"]
        samples = architecture.get("samples", {}).get("name", "images")
        origin = {name: header[name] for name in ("budget", "kept", "sparse") if header.get(name)}
        facts = facts_of(architecture, origin=origin, runtime=runtime or {}, data=data)
        return Member(load_member(where, runtime=runtime), facts, samples, architecture.get("outputs", "logits"))
    network, config, origin = load(where), read_config(where), read_origin(where)
    dense = origin.get("dense")
    factory = config["spp"].get("factory")
    preprocessing = config.get("pretrained_cfg", {})  # a folder as transformers has it has none
    facts = MemberFacts(
        class_names=config.get("label_names"),
        preprocessing=preprocessing,
        factory=factory,
        factory_kwargs=config.get("model_args", {}) if factory else {},
        licence=preprocessing.get("license"),
        dense=dense and Cost(dense["macs"], dense["params"]),
        origin=origin,
        tokenizer_files=files_in(where),
    )
    return Member(network, facts)


def facts_of(
    architecture: Mapping[str, Any],
    *,
    origin: Mapping[str, Any],
    dense: Cost | None = None,
    measured: Sequence[MeasuredValue] = (),
    runtime: Mapping[str, Any],
    data: OpenedData | None = None,
) -> MemberFacts:
    """What a folder is to say of a member that was cut from the dense network of a description (spp.models.build).

    Args:
        architecture: that description.
        origin: further entries of origin.json.
        dense: cost of the dense network.
        measured: of the member.
        runtime: where to find the factory of one's own network, or the files of a given one.
        data: what the member is for; None: not known.
    """
    model, samples = architecture["model"], architecture.get("samples", {})
    return MemberFacts(
        class_names=samples.get("class_names"),
        preprocessing=samples.get("preprocessing", {}),
        factory=model.get("factory"),
        factory_kwargs=model.get("kwargs", {}) if model.get("factory") else {},
        factory_folder=runtime.get("folder"),
        licence=_licence(model),
        dense=dense,
        measured=measured,
        origin=origin,
        tokenizer_files=_tokenizer_files(runtime, data),
    )


def has_texts(architecture: Mapping[str, Any]) -> bool:
    """Whether the network of a description takes tokens, which its data know how to make."""
    return config_of(architecture).library in ("bert", "clip")


def _tokenizer_files(runtime: Mapping[str, Any], data: OpenedData | None) -> Mapping[str, bytes]:
    """The tokenizer of the data; else that of the folder which a given language model is from."""
    if data is not None and data.data.tokenizer_files:
        return data.data.tokenizer_files
    return files_in(folder_of(runtime)) if "pretrained_folder" in runtime else {}


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a tokenizer that lie in a folder."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def _licence(model: Mapping[str, Any]) -> str | None:
    """Of weights that timm publishes, what it says of them."""
    if model.get("weights") != PRETRAINED or model.get("factory"):
        return None
    name = model["name"] if model.get("tag") is None else f"{model['name']}.{model['tag']}"
    published = get_pretrained_cfg(name)
    return None if published is None else published.license
