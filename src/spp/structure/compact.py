"""The compact model: removed units are cut out of the weights."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from spp.structure.adapters.registry import adapter_for
from spp.structure.pair import Pair
from spp.structure.wrappers import unwrapped

Widths = dict[str, int | list[int]]
"""Number of kept units by pair name; one number per head where the heads chose independently."""


def compact(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A deep copy of `model` without the units whose mask is False.

    It computes what the masked model computes at these 0/1 masks. (In training mode under the same seed too,
    except for dropout behind fc1 or between fewer heads, whose draws depend on these sizes.) It can be trained,
    wherever it was made. A head without a "vo" unit contributes nothing and leaves, whatever its "qk" units; one
    without a "qk" unit attends to all tokens alike, and stays. The heads that stay are filled up with zeros to the
    widest of them, and cost as much as it: `count_cost` of the result is what is achieved.

    Args:
        model: a model with an adapter, left unchanged; it may itself be compact. Wrappers of torch.compile and
            DataParallel are left out of the copy.
        masks: bool tensors by pair name, of shape (size,) as found with or without `per_head`. Without an
            entry a pair keeps all its units.

    Raises:
        ValueError: the model has no adapter; an unknown name; a mask of a wrong length or dtype.
    """
    model = unwrapped(model)
    adapter = adapter_for(model)
    pairs = {pair.name: pair for pair in adapter.pairs(model, per_head=False)}
    kept: dict[str, dict[str, list[Tensor]]] = defaultdict(dict)
    for name, mask in masks.items():
        pair = _named("masks", model, pairs, name)
        heads = _by_head(pair, mask)
        if not heads.all():
            kept[pair.module][pair.kind] = [row.nonzero().flatten() for row in heads]
    # What inference mode makes can never be trained.
    with torch.inference_mode(False):
        small = copy.deepcopy(model)
        for module, kinds in kept.items():
            adapter.shrink(small, module, kinds)
    return small


def scale_by_kept_width(small: nn.Module) -> None:
    """Scale the scores of every attention by its own query-key width, in place, not by that of the full head.

    So does code that computes the scale when it builds the compact attention. The result differs from the masked
    model wherever query-key units were removed.

    Args:
        small: a compact model. Heads of unequal widths are scaled by the widest, to which the others are filled up.

    Raises:
        ValueError: an attention has no query-key units, but values.
    """
    pairs = adapter_for(small).pairs(small, per_head=False)
    widths = {pair.owner: pair.size for pair in pairs if pair.kind == "qk"}
    for pair in (pair for pair in pairs if pair.kind == "vo"):
        if pair.owner not in widths:
            raise ValueError(
                f"masks: {pair.owner} without a query-key unit is not allowed where scores are scaled by the kept"
                " width; allowed: 1 or more, or no value unit either; use method.min_units=1 or a larger budget"
            )
        attention = small.get_submodule(pair.module)
        attention.scale = widths[pair.owner] ** -0.5


def widths_of(masks: Mapping[str, Tensor], pairs: Iterable[Pair]) -> Widths:
    """The widths that `compact` would give these pairs: plain numbers, fit for JSON and for `shrink_like`.

    The "qk" units of a head that leaves, for want of "vo" units, are not counted.

    Args:
        masks: bool tensors by pair name; without an entry a pair keeps all its units.
        pairs: the pairs to describe.
    """
    pairs = list(pairs)
    counts = {pair.name: _counts(pair, masks.get(pair.name)) for pair in pairs}
    values = {pair.owner: counts[pair.name] for pair in pairs if pair.kind == "vo"}
    widths: Widths = {}
    for pair in pairs:
        count = counts[pair.name]
        if pair.kind == "qk" and pair.owner in values:
            is_there = values[pair.owner] > 0
            count = count * (is_there if pair.per_head else is_there.any())
        widths[pair.name] = count.expand(pair.num_heads).tolist() if pair.per_head else int(count)
    return widths


def _counts(pair: Pair, mask: Tensor | None) -> Tensor:
    """Number of kept units, (num_heads,) where heads chose alone, else (1,)."""
    mask = torch.ones(pair.size, dtype=torch.bool) if mask is None else mask
    return mask.view(pair.num_heads if pair.per_head else 1, -1).sum(1)


def shrink_like(model: nn.Module, widths: Mapping[str, int | Sequence[int]]) -> nn.Module:
    """A compact model of the given widths, to load the state of another one into (strictly).

    Args:
        model: the dense architecture, left unchanged; its weights do not matter.
        widths: kept units by pair name, or one number per head; see `widths_of`. Without an entry a
            pair keeps all its units.

    Raises:
        ValueError: an unknown name, a width out of range, a wrong number of heads.
    """
    pairs = {pair.name: pair for pair in adapter_for(model).pairs(model, per_head=False)}
    masks = {name: _first_units(_named("widths", model, pairs, name), width) for name, width in widths.items()}
    return compact(model, masks)


def _named(field: str, model: nn.Module, pairs: Mapping[str, Pair], name: str) -> Pair:
    if name not in pairs:
        raise ValueError(
            f"{field}: {name} is not allowed: must be a pair of this {type(model).__name__};"
            " use a name of find_pairs(model)"
        )
    return pairs[name]


def _by_head(pair: Pair, mask: Tensor) -> Tensor:
    """The mask on the CPU with one row per head, shape (num_heads, units of one head)."""
    if mask.dtype != torch.bool:
        raise ValueError(f"masks: {pair.name} of {mask.dtype} is not allowed: must be torch.bool; use mask != 0")
    if mask.shape == (pair.size,):
        return mask.cpu().expand(pair.num_heads, pair.size)
    if mask.shape == (pair.num_heads * pair.size,):
        return mask.cpu().view(pair.num_heads, pair.size)
    per_head = f" or ({pair.num_heads * pair.size},) per head" if pair.num_heads > 1 else ""
    raise ValueError(
        f"masks: {pair.name} with shape {tuple(mask.shape)} is not allowed: must be ({pair.size},){per_head};"
        " give one value per unit"
    )


def _first_units(pair: Pair, width: int | Sequence[int]) -> Tensor:
    counts = torch.tensor([width] if isinstance(width, int) else list(width))
    expected = 1 if isinstance(width, int) else pair.num_heads
    if len(counts) != expected or not ((counts >= 0) & (counts <= pair.size)).all():
        raise ValueError(
            f"widths: {pair.name}={width} is not allowed: must be a whole number from 0 to {pair.size},"
            f" or a list of {pair.num_heads}; use widths_of(masks, pairs)"
        )
    return (torch.arange(pair.size) < counts[:, None]).flatten()
