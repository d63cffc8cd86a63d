"""Pairs: two maps with a shared inner dimension, whose entries are the units (paper, Section 3.1)."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from spp.structure.adapters.registry import adapter_for
from spp.structure.cost import Cost, count_cost


@dataclass(frozen=True)
class Pair:
    """One mask vector of a model.

    Attributes:
        name: `<module>.qk`, `<module>.vo`, or for an MLP the module: "blocks.0.attn.qk", "blocks.0.mlp".
        kind: "qk" (query-key), "vo" (value-projection) or "mlp" (fc1-fc2).
        size: number of units. Attention: the width of one head, a unit being that channel of every head; with
            `per_head` num_heads times that, head after head. MLP: the hidden width.
        params_per_unit: weights and biases that leave with one unit.
        macs_per_unit: multiply-adds per sample that leave with one unit, at the model's own input size. Both
            prices are additive over all pairs of a model.
        num_heads: heads of the attention, 1 for an MLP.
        per_head: whether the heads choose their units independently.
        module: dotted name of the attention or MLP module; a pair made by hand need not know it.
        model_cost: cost of the whole model that the pair was found in; None for a pair made by hand.
    """

    name: str
    kind: str
    size: int
    params_per_unit: int | float
    macs_per_unit: float
    num_heads: int = 1
    per_head: bool = False
    module: str = ""
    model_cost: Cost | None = None


def find_pairs(model: nn.Module, *, per_head: bool = False) -> list[Pair]:
    """List the pairs of a model in forward order; every pair carries the cost of the whole model.

    A compacted model can be searched again; a pair that has lost all its units is left out.

    Args:
        model: a model with an adapter; one forward pass of zeros is run to count its cost.
        per_head: let every head of an attention choose its own units.

    Raises:
        ValueError: the model has no adapter, or holds a part whose units cannot be separated.
    """
    pairs = adapter_for(model).pairs(model, per_head=per_head)
    cost = count_cost(model, example_input(model))
    return [replace(pair, model_cost=cost) for pair in pairs]


def example_input(model: nn.Module) -> Tensor:
    """Zeros of the model's own input size, batch 1, of the device and dtype of its weights.

    Raises:
        ValueError: the model has no adapter.
    """
    return adapter_for(model).example(model)
