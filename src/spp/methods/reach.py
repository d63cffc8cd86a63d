"""Which budgets the members of a ranking can have, known before a search: whatever it finds, what must stay stays."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spp.dynamics.budget import OutOfReachError
from spp.dynamics.ranking import Ranking
from spp.methods.method import MethodConfig
from spp.methods.registry import load_method
from spp.structure.pair import Pair

RANKING_KINDS = ("path", "ranking", "budget ranking")
"""What searches end in from which members are chosen."""


def refusals(
    config: MethodConfig, pairs: Sequence[Pair], kind: str, values: Sequence[float], multiple_of: int, form: str
) -> dict[float, str]:
    """The budgets that the method's selection cannot serve for every order of the units, and why: one line each.

    Tried are two orders: in one the units that must stay are those of few heads, in the other of as many as can be.

    Args:
        config: the settings that choose members.
        pairs: what units belong to.
        kind: macs, params or units.
        values: the wanted sizes.
        multiple_of: see `OrderedUnits.rounded_to`.
        form: see `OrderedUnits.rounded_to`.
    """
    method: Any = load_method(config.name)
    refused = {}
    for scores in ([_in_order(pair) for pair in pairs], [_over_heads(pair) for pair in pairs]):
        named = {pair.name: -score.double() for pair, score in zip(pairs, scores, strict=True)}
        order = Ranking.from_scores(named, pairs).rounded_to(multiple_of, form)
        for size in values:
            try:
                if "path" in config.kinds:  # which gives masks as a ranking does
                    wanted: dict[str, Any] = {kind: size}
                    order.masks(**wanted, min_units=config.min_units)
                else:
                    method.select(config, order, kind, size)
            except OutOfReachError as error:
                said = str(error).replace(f"use {kind}=", "use budget.values=")
                refused[size] = f"budget.values{said.removeprefix(kind)}" if said.startswith(f"{kind}:") else said
    return refused


def _in_order(pair: Pair) -> Tensor:
    """One head after the other."""
    return torch.arange(pair.size)


def _over_heads(pair: Pair) -> Tensor:
    """The first unit of each head, the second of each, ..."""
    per_head = pair.size // pair.num_heads if pair.per_head else pair.size
    return torch.arange(pair.size) % per_head
