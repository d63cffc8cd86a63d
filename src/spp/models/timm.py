"""Networks of timm by their names."""

from collections.abc import Mapping
from typing import Any

import timm
from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
from torch import nn

from spp.models.config import GIVEN_BY_DATA, PRETRAINED, ModelConfig, knows_other_classes
from spp.models.new_head import start_head_anew
from spp.text import reason_of

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository of the Hub."""
_PROBE_TIMEOUT_S = 10.0


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> nn.Module:
    """The network, freshly initialised or with timm's weights, whose head may have to be new.

    Raises:
        ValueError: one line, if timm refuses the arguments, they contradict the data, or timm's weights do not fit or
            cannot be fetched.
    """
    name = str(config.name) if config.tag is None else f"{config.name}.{config.tag}"
    given = {**inputs, **({} if num_outputs is None else {"num_classes": num_outputs})}
    _check_given(config.kwargs, given)
    is_pretrained = config.weights == PRETRAINED
    if is_pretrained:
        _check_pretrained(name, num_outputs, config.has_new_head)
    arguments = {**given, **config.kwargs}
    try:
        network = timm.create_model(name, pretrained=is_pretrained, **arguments)
    except OSError as error:
        if is_pretrained:
            raise _unreachable(name, error) from None
        raise
    except Exception as error:
        if "img_size" in str(error) and "img_size" not in config.kwargs:
            # No transformer but a network for images of any size: a teacher, or to be refused for what it is.
            del arguments["img_size"]
            return timm.create_model(name, pretrained=config.weights == PRETRAINED, **arguments)
        raise ValueError(
            f"model.kwargs: {arguments} do not fit {name} ({error}); allowed: the arguments of its timm "
            "constructor; correct model.kwargs or data.img_size"
        ) from None
    if is_pretrained and config.has_new_head:
        start_head_anew(network)
    return network


def _check_given(kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that contradict the data or the task."""
    for name in GIVEN_BY_DATA:
        if name in given and name in kwargs and kwargs[name] != given[name]:
            raise ValueError(
                f"model.kwargs.{name}: {kwargs[name]!r} contradicts data and task, for which it is {given[name]!r}; "
                f"allowed: {given[name]!r}; leave it out, or set it by the data"
            )


def _check_pretrained(name: str, num_outputs: int | None, has_new_head: bool) -> None:
    published = timm.get_pretrained_cfg(name)
    if published is None or (not has_new_head and published.num_classes != num_outputs):
        raise knows_other_classes(PRETRAINED, published.num_classes if published else 0, num_outputs)
    repository = published.hf_hub_id
    if not repository or any(isinstance(try_to_load_from_cache(repository, file), str) for file in _HUB_FILES):
        return
    try:  # by itself timm would try for a minute
        get_session().head(hf_hub_url(repository, _HUB_FILES[0]), timeout=_PROBE_TIMEOUT_S, follow_redirects=True)
    except Exception as error:
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> ValueError:
    """What to do where the weights of a name cannot be fetched."""
    published = timm.get_pretrained_cfg(name)
    repository = published and published.hf_hub_id
    address = hf_hub_url(repository, _HUB_FILES[0]) if repository else published and published.url
    reason = reason_of(error)
    return ValueError(
        f"model.weights: the weights of {name} cannot be fetched here ({reason}); allowed: a machine that reaches "
        f"them, or their file; fetch {address} elsewhere, put it here as {name}.safetensors, and say "
        f"model.weights={name}.safetensors"
    )
