"""What of a network can be pruned, what it costs, and what is left alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from spp.structure.cost import Cost
from spp.structure.find import find_pairs, unit_weights
from spp.structure.pair import Pair
from spp.structure.wrappers import unwrapped


@dataclass(frozen=True)
class LeftAlone:
    """A module with parameters that leave with no unit.

    Attributes:
        module: its dotted name.
        kind: its class.
        num_params: how many of them.
        reason: why they stay.
    """

    module: str
    kind: str
    num_params: int
    reason: str


@dataclass(frozen=True)
class Prunable:
    """What was found in a network.

    Attributes:
        pairs: in forward order.
        cost: of the whole network.
        unit_macs: multiply-adds of a sample that leave with all units.
        unit_params: parameters that do; of units that share some, an average.
        left_alone: the others, module by module.
    """

    pairs: list[Pair]
    cost: Cost
    unit_macs: float
    unit_params: float
    left_alone: list[LeftAlone]


def prunable(network: nn.Module) -> Prunable:
    """What of a network can be pruned.

    Raises:
        ValueError: one line that names the module, if an adapter is missing or a part is not understood.
    """
    pairs = find_pairs(network)
    cost = pairs[0].model_cost if pairs else None
    if cost is None:
        raise ValueError(
            f"model: {type(network).__name__} has no unit that could leave; allowed: a network with some; take another"
        )
    return Prunable(
        pairs=pairs,
        cost=cost,
        unit_macs=sum(float(pair.size * pair.macs_per_unit) for pair in pairs),
        unit_params=sum(float(pair.size * pair.params_per_unit) for pair in pairs),
        left_alone=list(_left_alone(unwrapped(network), pairs)),
    )


def _left_alone(network: nn.Module, pairs: list[Pair]) -> Iterator[LeftAlone]:
    leaving: dict[str, int] = {}
    for pair in pairs:
        for part in unit_weights(network, pair):
            num_per_slice = part.parameter.numel() // part.parameter.shape[part.dim]
            leaving[part.name] = leaving.get(part.name, 0) + part.index.numel() * num_per_slice
    for name, module in network.named_modules():
        own = list(module.named_parameters(prefix=name, recurse=False))
        num_params = sum(parameter.numel() - leaving.get(full, 0) for full, parameter in own)
        if num_params:
            is_partly_cut = any(full in leaving for full, _ in own)
            yield LeftAlone(name or "(itself)", type(module).__name__, num_params, _reason(module, is_partly_cut))


def _reason(module: nn.Module, is_partly_cut: bool) -> str:
    if is_partly_cut:
        return "a bias of the residual stream, which keeps its width"
    if isinstance(module, nn.LayerNorm | nn.GroupNorm) or "Norm" in type(module).__name__:
        return "normalises the residual stream, which keeps its width"
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        return "makes or reads the residual stream, and is half of no pair"
    return "belongs to the residual stream as a whole, or to all units alike"
