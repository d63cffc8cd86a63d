"""One's own network: `model.factory=my.module:make_model`, called with `model.kwargs`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spp.factory import call_factory, load_factory
from spp.models.config import ModelConfig


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> nn.Module:
    """The network as the factory makes it, on the CPU; `inputs` and `num_outputs` are the factory's own business.

    Raises:
        ValueError: one line, if the factory cannot be imported, has changed, fails, or returns something else.
    """
    assert config.factory is not None
    if config.source is None:
        raise ValueError(
            f"model.factory: {config.factory!r} comes without the sha256 of its source; allowed: what planning has "
            "found; make the file again"
        )
    factory = load_factory(config.factory, runtime.get("folder"), config.source, "model.factory")
    network = call_factory(factory, config.kwargs, config.factory, "model.factory")
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"model.factory: {config.factory!r} returned a {type(network).__name__}; allowed: a torch.nn.Module; "
            "return one"
        )
    return network.cpu().train()
