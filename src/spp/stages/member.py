"""A member of the family on disk: the weights of a compact network and what is needed to build it again."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from spp.models.build import build_for_weights, problem_of
from spp.models.weights import load_weights, save_weights
from spp.structure.compact import scale_by_kept_width, shrink_like, widths_of
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs, set_drop_path
from spp.structure.pair import Pair
from spp.structure.tokens import drop_tokens, kept_tokens

FILE_NAME = "member.safetensors"
_HEADER = "spp_member"


def member_file(size: float) -> str:
    """Name of the artifact of a family that holds the member at a budget."""
    return f"member_{size:.10g}.safetensors"


def save_member(
    file: Path,
    small: nn.Module,
    masks: Mapping[str, Tensor],
    pairs: Iterable[Pair],
    architecture: Mapping[str, Any],
    sparse: Collection[str] = (),
    **extra: Any,
) -> Cost:
    """Write a compact network to one safetensors file whose header says how to build it again.

    Args:
        file: target, ending in .safetensors.
        small: the compact network, on the CPU.
        masks: the units of the dense network that it kept, by pair.
        pairs: the pairs of the dense network.
        architecture: of the dense network, see spp.models.build.
        sparse: names of parameters whose zeros are pruned weights: they are not counted, and stay zeros.
        extra: further JSON values for the header: the budget, and what the method's finish_member returned.

    Returns:
        The counted cost of the network.
    """
    cost = count_cost(small, example_inputs(small))
    num_zeros = sum(int((small.get_parameter(name) == 0).sum()) for name in sparse)
    cost = Cost(cost.macs, cost.params - num_zeros)
    description = {
        "architecture": dict(architecture),
        "widths": widths_of(masks, pairs),
        "kept": {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()},
        "macs": cost.macs,
        "params": cost.params,
        "sparse": sorted(sparse),
        **extra,
    }
    if tokens := kept_tokens(small):
        description["tokens"] = tokens
    write_member(file, small, description)
    return cost


def write_member(file: Path, small: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a member's weights under a known description (after training it on).

    Raises:
        ValueError: the weights are not finite.
    """
    save_weights(small, file, metadata={_HEADER: json.dumps(description, allow_nan=False)})


def describe_member(file: Path) -> dict[str, Any]:
    """The header of a member's file.

    Raises:
        ValueError: if the file is missing, broken, or no member.
    """
    allowed = "a .safetensors file written by spp run or spp extract"
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except Exception as error:
        raise ValueError(f"member: {str(file)!r} cannot be read ({error}); allowed: {allowed}; make it again") from None
    if _HEADER not in metadata:
        raise ValueError(f"member: {str(file)!r} is no member of a family; allowed: {allowed}; check the path")
    problem, description = _read_header(metadata[_HEADER])
    if problem:
        raise ValueError(f"member: {str(file)!r} has a header {problem}; allowed: {allowed}; make it again")
    return description


def _read_header(text: str) -> tuple[str, dict[str, Any]]:
    """What is wrong with a header, and what it says; a file may come from anywhere."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return "that is no JSON", {}
    if not isinstance(header, dict):
        return f"that is a {type(header).__name__}", {}
    problem, widths = problem_of(header.get("architecture")), header.get("widths")
    if problem:
        return problem, {}
    if not isinstance(widths, dict) or not all(map(_is_width, widths.values())):
        return "without a number of units for each pair in widths", {}
    return "", header


def _is_width(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_width, value))
    return isinstance(value, int) and not isinstance(value, bool)


def build_untrained(architecture: Mapping[str, Any], runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """The dense network of a description (spp.models.build), for weights to be loaded into; no stochastic depth."""
    network = build_for_weights(architecture, runtime)
    set_drop_path(network, 0.0)
    return network


def load_member(file: Path | str, *, drop_path: float = 0.0, runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a member again and load its weights: a plain torch module, in eval mode, on the CPU.

    Args:
        file: a member's .safetensors file, or the folder that holds it as member.safetensors.
        drop_path: stochastic depth for further training.
        runtime: where to find the factory of one's own network; None: in this folder or on Python's path.

    Raises:
        ValueError: if the file is missing, broken, or no member.
    """
    file = Path(file)
    file = file / FILE_NAME if file.is_dir() else file
    description = describe_member(file)
    dense = build_untrained(description["architecture"], runtime)
    set_drop_path(dense, drop_path)
    drop_tokens(dense, description.get("tokens", {}))
    small = shrink_like(dense, description["widths"])
    if description.get("is_scaled_by_kept_width", False):
        scale_by_kept_width(small)
    load_weights(small, load_file(file), str(file))
    return small.eval()
