"""config.json of a member: timm's keys, those of transformers, and the sizes of each module."""

import json
from typing import Any

import timm
import torch
from timm.models import get_model_args, get_model_input_config
from torch import nn

from spp.deploy.facts import MemberFacts
from spp.structure.find import example_inputs, module_sizes
from spp.structure.inputs import call
from spp.structure.modeling_spp import FORMAT
from spp.structure.tokens import kept_tokens

_HUGGING_FACE = {
    "model_type": "spp",
    "architectures": ["SppForImageClassification"],
    "auto_map": {
        "AutoConfig": "modeling_spp.SppConfig",
        "AutoModelForImageClassification": "modeling_spp.SppForImageClassification",
    },
}


def folder_config(small: nn.Module, facts: MemberFacts) -> dict[str, Any]:
    """What config.json says; the sizes of each module are under "spp".

    Raises:
        ValueError: one line, if the network cannot be built again from its name, or class names are not one each.
    """
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
