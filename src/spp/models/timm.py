"""Networks of timm by their names."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from spp.models.config import GIVEN_BY_DATA, PRETRAINED, ModelConfig


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> nn.Module:
    """The network, freshly initialised or with timm's weights.

    Raises:
        ValueError: one line, if timm refuses the arguments, they contradict the data, or timm has no weights that fit.
    """
    name = str(config.name) if config.tag is None else f"{config.name}.{config.tag}"
    given = {**inputs, **({} if num_outputs is None else {"num_classes": num_outputs})}
    _check_given(config.kwargs, given)
    if config.weights == PRETRAINED:
        _check_pretrained(name, num_outputs)
    arguments = {**given, **config.kwargs}
    try:
        return timm.create_model(name, pretrained=config.weights == PRETRAINED, **arguments)
    except Exception as error:
        if "img_size" in str(error) and "img_size" not in config.kwargs:
            # No transformer but a network for images of any size: a teacher, or to be refused for what it is.
            del arguments["img_size"]
            return timm.create_model(name, pretrained=config.weights == PRETRAINED, **arguments)
        raise ValueError(
            f"model.kwargs: {arguments} do not fit {name} ({error}); allowed: the arguments of its timm "
            "constructor; correct model.kwargs or data.img_size"
        ) from None


def _check_given(kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that contradict the data or the task."""
    for name in GIVEN_BY_DATA:
        if name in given and name in kwargs and kwargs[name] != given[name]:
            raise ValueError(
                f"model.kwargs.{name}: {kwargs[name]!r} contradicts data and task, for which it is {given[name]!r}; "
                f"allowed: {given[name]!r}; leave it out, or set it by the data"
            )


def _check_pretrained(name: str, num_outputs: int | None) -> None:
    published = timm.get_pretrained_cfg(name)
    if published is None or published.num_classes != num_outputs:
        known = published.num_classes if published else 0
        raise ValueError(
            f"model.weights: 'pretrained' knows {known} classes and the data have {num_outputs}; "
            "allowed: train, or a checkpoint trained on this data; train one first"
        )
