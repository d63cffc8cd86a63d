"""Pairs: two maps with a shared inner dimension, whose entries are the units (paper, Section 3.1)."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from spp.structure.adapters.registry import UnitWeights, adapter_for
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
            prices are additive over all pairs of a model, as long as no head leaves; see `spp.dynamics.budget`.
        num_heads: heads of the attention, 1 for an MLP.
        per_head: whether the heads choose their units independently.
        module: dotted name of the attention or MLP module; a pair made by hand need not know it.
        model_cost: cost of the whole model that the pair was found in; None for a pair made by hand.
        params_per_head: of a "vo" pair, the parameters that leave with one head beside its units: its column of
            a relative position bias. A head leaves when all its "vo" units have.
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
    params_per_head: int | float = 0

    @property
    def owner(self) -> str:
        """What the "qk" and the "vo" pair of one attention have in common: the name without the kind."""
        return self.name.removesuffix(f".{self.kind}")


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


def unit_weights(model: nn.Module, pair: Pair) -> list[UnitWeights]:
    """Where the units of a pair lie in the parameters: all `pair.params_per_unit` numbers that leave with a unit.

    A "qk" unit: its rows of W_q and W_k; a "vo" unit: its rows of W_v and columns of W_proj; an "mlp" unit: its row of
    fc1 and column of fc2; biases of the rows are listed by themselves (`parameter.ndim == 1`). Of a unit that the heads
    share, those of every head. No number belongs to two units.

    Args:
        model: a model with an adapter.
        pair: a pair of that model, found with or without `per_head`.

    Raises:
        ValueError: the model has no adapter.
    """
    return adapter_for(model).unit_weights(model, pair)


def example_input(model: nn.Module) -> Tensor:
    """Zeros of the model's own input size, batch 1, of the device and dtype of its weights.

    Raises:
        ValueError: the model has no adapter.
    """
    return adapter_for(model).example(model)
