"""What can be pruned in a model: its pairs, and where their units lie in the weights."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spp.structure.adapters.adapter import UnitWeights
from spp.structure.adapters.registry import adapter_for
from spp.structure.cost import count_cost
from spp.structure.inputs import Inputs
from spp.structure.pair import Pair
from spp.structure.wrappers import unwrapped


def find_pairs(model: nn.Module, *, per_head: bool = False, example: Inputs | None = None) -> list[Pair]:
    """List the pairs of a model in forward order; every pair carries the cost of the whole model.

    A compacted model can be searched again; a pair that has lost all its units is left out. A model that holds one
    supported network, as `.backbone` or anywhere else, is searched there; what torch.compile and DataParallel have
    wrapped is unwrapped first.

    Args:
        model: a model with an adapter; one forward pass is run to count its cost.
        per_head: let every head of an attention choose its own units.
        example: what the model is called with for that; None: zeros of the size that its adapter knows.

    Raises:
        ValueError: the model has no adapter, or holds a part whose units cannot be separated.
    """
    model = unwrapped(model)
    pairs = adapter_for(model).pairs(model, per_head=per_head)
    cost = count_cost(model, example_inputs(model) if example is None else example)
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


def example_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Zeros of the model's own input size by the names of its forward, batch 1, of the device and dtype of its weights.

    Raises:
        ValueError: the model has no adapter.
    """
    return adapter_for(model).example_inputs(model)


def module_sizes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Sizes of every attention and MLP by dotted name, as modeling_spp.py takes them to build the network again.

    Raises:
        ValueError: the model has no adapter, or that file cannot build networks of its architecture.
    """
    return adapter_for(model).module_sizes(model)


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Set stochastic depth, in place: from 0 in the first block, rising evenly, to `rate` in the last.

    Raises:
        ValueError: the model has no adapter.
    """
    adapter_for(model).set_drop_path(model, rate)
