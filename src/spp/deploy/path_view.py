"""A finished path as a menu: what its members cost, which units leave first, and what its members may reach."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from spp.dynamics.budget import OutOfReachError, sizes_of
from spp.record.prediction import Treatment, recorded_treatments
from spp.stages.extract import OpenedPath, is_of_no_stage
from spp.stages.member_source import MemberSource, PathFile
from spp.store.store import Store

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05)
"""Of the dense network's multiply-adds, at which the members of a path are shown; the smallest of all stands for those
that are out of reach."""
_NUM_LOOKS = 100
"""Sizes at which is looked what has left: to 1 % of the dense network."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One pair of a path.

    Attributes:
        name: of the pair.
        kind: qk, vo or mlp.
        num_units: of the dense network.
        num_heads: that share the units, or 1.
        first_gone: share of the multiply-adds of the largest member that lacks one of its units; None: none ever does.
        half_gone: of the largest member that lacks half of them or more; None likewise.
    """

    name: str
    kind: str
    num_units: int
    num_heads: int
    first_gone: float | None
    half_gone: float | None


@dataclass(frozen=True, kw_only=True)
class Dish:
    """One member of a path: its cost as the path's prices say, and the units that every pair keeps."""

    macs: float
    params: int
    num_units: int
    share: float
    widths: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class PathView:
    """What there is to know of a path.

    Attributes:
        kind: of its search's stage; "file": no stage of the store made it.
        key: of that; of a file its name.
        method: that found it.
        dense: the member that lacks nothing.
        layers: those of which units leave first come first.
        dishes: members of sizes along the path, the largest first.
        chosen: the one that was asked for.
        treatments: recorded members.
    """

    kind: str
    key: str
    method: str
    dense: Dish
    layers: list[Layer]
    dishes: list[Dish]
    chosen: Dish | None
    treatments: list[Treatment]


def view_path(store: Store, source: str, wanted: tuple[str, float] | None = None) -> PathView:
    """Look at a path.

    Args:
        store: where its stages are.
        source: see `OpenedPath`; or the file of a path that is of no stage.
        wanted: kind and size of one more member.

    Raises:
        ValueError: one line, if there is no such path, or the size is out of reach.
    """
    opened: MemberSource
    if is_of_no_stage(store, source):
        opened, kind, key, method = PathFile(source), "file", Path(source).name, "that is not recorded"
        treatments = []
    else:
        opened = found = OpenedPath(store, source)
        kind, key, method = found.ref.kind, found.ref.key, found.method
        treatments = recorded_treatments(store, key)
    chosen = None if wanted is None else _dish(opened, opened.select(*wanted, 1))
    full = {pair.name: pair.size for pair in opened.path.pairs}
    dense = Dish(macs=opened.dense.macs, params=opened.dense.params, num_units=sum(full.values()), share=1, widths=full)
    dishes = [_dish(opened, masks) for masks in _along(opened)]
    return PathView(
        kind=kind,
        key=key,
        method=method,
        dense=dense,
        layers=_layers(opened),
        dishes=dishes,
        chosen=chosen,
        treatments=treatments,
    )


def _along(opened: MemberSource) -> list[dict[str, Tensor]]:
    """Masks of the sizes in SHARES that can be reached, and of the smallest where some cannot."""
    found = []
    for share in SHARES:
        try:
            found.append(opened.select("macs", share * opened.dense.macs, 1))
        except OutOfReachError:
            continue
    if len(found) == len(SHARES):
        return found
    lowest, highest = opened.path.budget_range("macs")
    if opened.path.tokens:  # the largest member is smaller than the dense network
        found.insert(0, opened.select("macs", highest, 1))
    with suppress(OutOfReachError):  # where the method keeps more than one unit of every pair
        found.append(opened.select("macs", lowest, 1))
    return found


def _dish(opened: MemberSource, masks: Mapping[str, Tensor]) -> Dish:
    sizes = sizes_of(opened.path.cost_of(masks), masks)
    return Dish(
        macs=sizes["macs"],
        params=int(sizes["params"]),
        num_units=int(sizes["units"]),
        share=sizes["macs"] / opened.dense.macs,
        widths={name: int(mask.sum()) for name, mask in masks.items()},
    )


def _layers(opened: MemberSource) -> list[Layer]:
    """The pairs, first those that lose half of their units while the member is largest."""
    lowest, highest = opened.path.budget_range("macs")
    gone: dict[str, list[tuple[float, int]]] = {pair.name: [] for pair in opened.path.pairs}
    for number in range(_NUM_LOOKS):
        try:
            masks = opened.select("macs", highest - (highest - lowest) * number / (_NUM_LOOKS - 1), 1)
        except OutOfReachError:
            break
        share = opened.path.cost_of(masks).macs / opened.dense.macs
        for name, mask in masks.items():
            gone[name].append((share, int((~mask).sum())))
    layers = [
        Layer(
            name=pair.name,
            kind=pair.kind,
            num_units=pair.size,
            num_heads=pair.num_heads,
            first_gone=_largest(gone[pair.name], 1),
            half_gone=_largest(gone[pair.name], (pair.size + 1) // 2),
        )
        for pair in opened.path.pairs
    ]
    return sorted(layers, key=lambda layer: (-(layer.half_gone or 0), -(layer.first_gone or 0)))


def _largest(gone: list[tuple[float, int]], num_units: int) -> float | None:
    """Share of the largest member that lacks so many units; None if none does."""
    return next((share for share, number in gone if number >= num_units), None)
