"""Weights of one network for another: other classes, image size or channels."""

import sys
from collections.abc import Mapping
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor, nn

_INIT_STD = 0.02
"""Of the weights of a new head, as timm initialises those of its transformers."""


def with_new_head(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a head that begins anew, for as many outputs as the network has.

    Args:
        network: its own head is initialised, in place.
        weights: of a network that may have another head, under the names of this one.

    Raises:
        ValueError: one line, if the network does not say what its head is.
    """
    names = head_parameters(network)
    start_head_anew(network)
    return {**weights, **{name: network.get_parameter(name).detach().clone() for name in names}}


def start_head_anew(network: nn.Module) -> None:
    """Initialise the head, in place.

    Raises:
        ValueError: one line, if the network does not say what its head is.
    """
    for name in head_parameters(network):
        parameter = network.get_parameter(name)
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=_INIT_STD)
        else:
            nn.init.zeros_(parameter)


def has_head(network: nn.Module) -> bool:
    """Whether a network says what its head is."""
    return _owner_of_head(network) is not None


def _owner_of_head(network: nn.Module) -> Any:
    return next((module for module in network.modules() if hasattr(module, "get_classifier")), None)


def head_parameters(network: nn.Module) -> list[str]:
    """Names of the parameters that make scores of features: those of the classifier, as timm calls it.

    A module that holds a network of timm has that network's head.

    Raises:
        ValueError: one line, if the network does not say what its head is.
    """
    owner = _owner_of_head(network)
    found = () if owner is None else owner.get_classifier()
    heads = set(found if isinstance(found, tuple) else (found,))  # of a distilled network there are two
    names = [
        f"{name}.{part}"
        for name, module in network.named_modules()
        if module in heads
        for part, _ in module.named_parameters()
    ]
    if not names:
        raise ValueError(
            f"model.head: 'new' is not allowed with {type(network).__name__}, which does not say what its head is; "
            "allowed: kept, or a network with a method get_classifier() as those of timm have; add one"
        )
    return names


def converted(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as timm converts its own when it loads them: to other image sizes, patches and channels.

    Args:
        network: of timm.
        weights: of its architecture. What timm cannot convert, or fits already, stays as it is.
    """
    if _fits(network, weights):
        return dict(weights)
    convert: Any = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", dict)
    try:
        found: dict[str, Tensor] = convert(dict(weights), network)
    except Exception:  # of another architecture: loading it will say in what it differs
        return dict(weights)
    name = f"{network.pretrained_cfg['first_conv']}.weight"  # type: ignore[index]
    if name in found:
        stem, num_channels = found[name], network.get_parameter(name).shape[1]
        found[name] = adapt_input_conv(num_channels, stem, base_chans=stem.shape[1])
    return found


def _fits(network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == weights.keys() and all(weights[name].shape == value.shape for name, value in own.items())
