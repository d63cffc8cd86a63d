"""Models of several towers, such as CLIP: the pairs of one of them, with the cost of that tower alone."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from spp.structure.adapters.registry import adapter_for
from spp.structure.cost import count_part
from spp.structure.find import example_inputs
from spp.structure.inputs import Inputs
from spp.structure.pair import Pair
from spp.structure.wrappers import unwrapped

JOINT = "joint"
"""All towers together, and what a model without towers has."""


def pairs_of_tower(model: nn.Module, pairs: Sequence[Pair], tower: str, *, example: Inputs | None = None) -> list[Pair]:
    """The pairs of one tower, whose model is that tower: budgets are then of the tower alone.

    Args:
        model: that `pairs` were found in.
        pairs: of that model.
        tower: its name; joint: `pairs` as they are.
        example: what the model is called with to count the cost; None: zeros of the size that its adapter knows.

    Raises:
        ValueError: one line, if the model has no such tower.
    """
    if tower == JOINT:
        return list(pairs)
    model = unwrapped(model)
    towers = adapter_for(model).towers(model)
    if tower not in towers:
        allowed = ", ".join([JOINT, *towers])
        raise ValueError(
            f"budget.towers: {tower!r} is no tower of a {type(model).__name__}; allowed: {allowed}; use {JOINT}"
        )
    modules = towers[tower].modules
    cost = count_part(model, modules, example_inputs(model) if example is None else example)
    inside = tuple(f"{name}." for name in modules)
    return [replace(pair, model_cost=cost) for pair in pairs if pair.name.startswith(inside)]
