"""Whether a language model takes the windows and the pattern that are asked for, from its configuration alone."""

from pathlib import Path
from typing import Any

import torch

from spp.models.causal import build_from
from spp.models.decoder import INPUTS
from spp.models.pretrained import CONFIG_FILE
from spp.plan.one_shot import OneShotSetup
from spp.sparsity.pattern import Pattern
from spp.sparsity.permutation import TiedHeads, find_permutation
from spp.stages.sparsify import HEADS_INPUT


def check_language_fit(setup: OneShotSetup, network: Any) -> None:
    """Refuse windows longer than the model takes, and N:M that its linears, or its heads, do not divide into.

    Args:
        setup: of the point.
        network: the CausalNetwork that is trained for it; None for a given model, which is converted before it is
            looked at.

    Raises:
        ValueError: one line.
    """
    configuration = _configuration_of(setup) if network is None else network.model.config
    if configuration is None:
        return
    for field, length in (("data.length", setup.data.length), ("calibration.length", setup.calibration.length)):
        if length is not None and length > configuration.max_position_embeddings:
            raise ValueError(
                f"{field}: {length} tokens are more than the model takes, {configuration.max_position_embeddings}; "
                "allowed: up to that; use a smaller one"
            )
    pattern = Pattern.from_config(setup.sparsity)
    if pattern.ratio is None:
        return
    widths = _widths_of_inputs(configuration)
    for name, source in INPUTS[configuration.model_type].items():
        pattern.check(f"layers.{name}", widths[source])
    if setup.sparsity.permutation != "none":
        num_heads = configuration.num_attention_heads
        num_groups = getattr(configuration, "num_key_value_heads", None) or num_heads
        heads = TiedHeads(num_groups, num_heads // num_groups)
        find_permutation(torch.zeros(1, widths[HEADS_INPUT]), *pattern.ratio, "heuristic", heads)


def _configuration_of(setup: OneShotSetup) -> Any:
    import transformers

    folder = Path(setup.runtime.model["pretrained_folder"])
    if not (folder / CONFIG_FILE).is_file():
        return None
    return transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)


def _widths_of_inputs(configuration: Any) -> dict[str, int]:
    """Features of the inputs of a decoder layer's linears, by the names of the inputs."""
    with torch.device("meta"):
        model: Any = build_from(configuration)
    layer, inputs = model.get_decoder().layers[0], INPUTS[configuration.model_type]
    return {source: layer.get_submodule(name).in_features for name, source in inputs.items()}
