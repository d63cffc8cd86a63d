"""The picture of one search: who enters the support, when, with what weight, and whether it stays."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spp.report.drawing import TEXT_WIDTH, Drawing, house_style, new_figure
from spp.report.palette import UNIT_KIND_STYLES
from spp.report.path_arrays import UNIT_KINDS, Array, PathArrays, support_share

NUM_TRAJECTORIES = 4
"""Units of each kind whose Gamma is drawn, spread evenly over the order of entry."""
NUM_COLUMNS = 100
"""Columns of the heat map: a layer's units by time of entry, in percent."""

CAPTION = (
    "Top: units in the support of Γ, by kind, in percent; Γ of {num} units of each kind, spread evenly over its order "
    "of entry, first to last; {third}. Bottom: the step at which each unit entered, one row per layer, its units "
    "in the order of entry; hatched: never."
)


@house_style()
def draw_path(path: PathArrays, name: str, title: str) -> Drawing:
    """Draw a search: support, trajectories and persistence over the steps, and the heat map of entries."""
    kinds = [kind for kind in UNIT_KINDS if path.of_kind(kind)]
    figure = new_figure(TEXT_WIDTH, 5.0)
    figure.suptitle(title)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.05])[:, 0]
    support, trajectories, persistence = top.subplots(1, 3)
    _draw_kinds(support, path, {kind: support_share(path, kind) for kind in kinds}, "in the support", "units (%)")
    support.set_ylim(-2, 105)
    _draw_trajectories(trajectories, path, kinds)
    third = _draw_who_left(persistence, path, kinds)
    entries = {UNIT_KINDS[kind]: support.get_lines()[index] for index, kind in enumerate(kinds)}
    top.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=len(entries), handlelength=3.2)
    _draw_entries(bottom, path, kinds)
    caption = CAPTION.format(num=NUM_TRAJECTORIES, third=third)
    return Drawing(name, title, figure, caption, tuple(_tidy(path, kinds)))


def share_that_left(gamma: Array) -> Array:
    """Of the units that have entered by each sample, the percentage that has left at least once; NaN before the first.

    Shapes: gamma (num_samples, num_units); returns (num_samples,).
    """
    inside = gamma != 0
    has_entered = np.logical_or.accumulate(inside, axis=0)
    has_left = np.logical_or.accumulate(has_entered & ~inside, axis=0)
    num_entered = has_entered.sum(axis=1)
    share: Array = np.full(len(gamma), np.nan)
    np.divide(100.0 * has_left.sum(axis=1), num_entered, out=share, where=num_entered > 0)
    return share


def chosen_units(path: PathArrays, kind: str) -> Array:
    """Numbers within the kind of the units whose trajectories are drawn, first to enter first."""
    entry = np.concatenate([path.entry[name] for name in path.of_kind(kind)])
    entered: Array = np.argsort(entry, kind="stable")[: int(np.isfinite(entry).sum())]
    places = np.linspace(0, len(entered) - 1, min(NUM_TRAJECTORIES, len(entered))).astype(int)
    return np.take(entered, places)


def _gamma(path: PathArrays, kind: str) -> Array:
    return np.concatenate([path.gamma[name] for name in path.of_kind(kind)], axis=1)


def _draw_kinds(axes: Any, path: PathArrays, shares: Mapping[str, Array], title: str, label: str) -> None:
    for kind, share in shares.items():
        style = UNIT_KIND_STYLES[kind]
        axes.plot(path.steps, share, color=style.color, linestyle=style.line)
    axes.set(title=title, xlabel="search step", ylabel=label, xlim=(0, path.num_steps))


def _draw_who_left(axes: Any, path: PathArrays, kinds: list[str]) -> str:
    """Draw how many units left the support again or, where none ever did, with what Γ the search ends.

    Returns what it shows, for the caption.
    """
    left = {kind: share_that_left(_gamma(path, kind)) for kind in kinds}
    most = np.nanmax([0.0, *np.concatenate(list(left.values()))])
    if most > 0:
        _draw_kinds(axes, path, left, "left after entering", "of units entered (%)")
        axes.set_ylim(-0.03 * most, max(5.0, 1.05 * most))
        every = int(path.steps[1] - path.steps[0]) if len(path.steps) > 1 else 1
        return (
            "of the units that have entered, the percentage that has left again at least once, as sampled every "
            f"{every} steps"
        )
    for kind in kinds:
        style, last = UNIT_KIND_STYLES[kind], np.sort(_gamma(path, kind)[-1])[::-1]
        axes.plot(np.linspace(0, 100, len(last)), last, color=style.color, linestyle=style.line)
    axes.set(title="at the last step", xlabel="units by Γ (%)", ylabel="Γ (mask value)", xlim=(0, 100))
    return "Γ of all units at the last step, largest first (none that had entered ever left)"


def _draw_trajectories(axes: Any, path: PathArrays, kinds: list[str]) -> None:
    for kind in kinds:
        style = UNIT_KIND_STYLES[kind]
        gamma = _gamma(path, kind)[:, chosen_units(path, kind)]
        if gamma.size:
            axes.plot(path.steps, gamma, color=style.color, linestyle=style.line, linewidth=1.0)
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=1)
    axes.set(
        title=f"trajectories of {NUM_TRAJECTORIES} units a kind",
        xlabel="search step",
        ylabel="Γ (mask value)",
        xlim=(0, path.num_steps),
    )
    if not any(np.isfinite(entry).any() for entry in path.entry.values()):
        axes.text(0.5, 0.6, "no unit entered", transform=axes.transAxes, ha="center")


def entry_grid(path: PathArrays, kind: str) -> Array:
    """Step of entry by layer, its units sorted by it and seen at NUM_COLUMNS places; NaN where none ever entered."""
    rows = [np.sort(path.entry[name]) for name in path.of_kind(kind)]
    grid = np.stack([row[np.linspace(0, len(row) - 1, NUM_COLUMNS).round().astype(int)] for row in rows])
    return np.where(np.isfinite(grid), grid, np.nan)


def _draw_entries(figure: Any, path: PathArrays, kinds: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    panels = np.atleast_1d(figure.subplots(1, len(kinds)))
    for axes, kind in zip(panels, kinds, strict=True):
        grid = entry_grid(path, kind)
        sizes = sorted({len(path.entry[name]) for name in path.of_kind(kind)})
        width = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        axes.patch.set(facecolor="0.93", hatch="////", edgecolor="0.75", linewidth=0)
        image = axes.imshow(
            grid,
            aspect="auto",
            interpolation="nearest",
            cmap="cividis",
            vmin=0,
            vmax=path.num_steps,
            extent=(0, 100, len(grid) + 0.5, 0.5),
        )
        axes.set(title=f"{UNIT_KINDS[kind]} ({width} per layer)", xlabel="units by entry (%)", ylabel="layer")
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.set_ylim(len(grid) + 0.5, 0.5)
    figure.colorbar(image, ax=list(panels), label="step of entry", pad=0.02)


def _tidy(path: PathArrays, kinds: list[str]) -> Iterator[Mapping[str, Any]]:
    """Rows of all panels: support and left (percent over steps), gamma (of the chosen units), entry (of every unit)."""
    for kind in kinds:
        for panel, shares in (("support", support_share(path, kind)), ("left", share_that_left(_gamma(path, kind)))):
            for step, share in zip(path.steps.tolist(), shares.tolist(), strict=True):
                value = share if np.isfinite(share) else None
                yield {"panel": panel, "kind": kind, "pair": None, "unit": None, "step": step, "value": value}
    for kind in kinds:
        units = [(name, unit) for name in path.of_kind(kind) for unit in range(len(path.entry[name]))]
        for number in chosen_units(path, kind).tolist():
            name, unit = units[number]
            for step, value in zip(path.steps.tolist(), path.gamma[name][:, unit].tolist(), strict=True):
                yield {"panel": "gamma", "kind": kind, "pair": name, "unit": unit, "step": step, "value": value}
        for name, unit in units:
            entry = float(path.entry[name][unit])
            step = entry if np.isfinite(entry) else None
            value = float(path.gamma[name][-1, unit]) if len(path.steps) else None
            yield {"panel": "entry", "kind": kind, "pair": name, "unit": unit, "step": step, "value": value}
