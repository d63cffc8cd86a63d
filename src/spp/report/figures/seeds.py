"""The picture of several searches that differ by their seed: how equal are the paths?"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from spp.report.consistency import chance_overlap, entry_times, kendall_tau, support_overlap, unit_costs, unit_order
from spp.report.drawing import TEXT_WIDTH, Drawing, house_style, legend_below, new_figure
from spp.report.palette import BLACK, BLUE, GREY, UNIT_KIND_STYLES
from spp.report.path_arrays import UNIT_KINDS, Array, PathArrays, support_share

BUDGETS = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Shares of the FLOPs of all units at which supports are compared."""
NUM_STEPS = 101
"""Steps at which the supports of several searches are drawn, evenly over the shortest search."""
MAX_SEEDS_WITH_NUMBERS = 8

CAPTION = (
    "Left: units in the support of Γ by kind, mean over {num_seeds} seeds and the range between them. Middle: "
    "Kendall's tau of the times of entry of all units, for every two seeds; 1 is the same order, 0 no more alike than "
    "chance. Right: units that both of two seeds keep, of those that one of them keeps, at equal FLOPs of all kept "
    "units: mean over the pairs of seeds and the range between them; the dotted line is what as many units drawn by "
    "chance would have in common."
)


@house_style()
def draw_seeds(paths: Mapping[int, PathArrays], name: str, title: str) -> Drawing:
    """Draw searches of one model, by seed: supports over the steps, tau between the seeds, overlap over the budget.

    Raises:
        ValueError: if there are less than two, or they are of models with different units.
    """
    if len(paths) < 2:
        raise ValueError(f"paths: {len(paths)} seed is not enough; allowed: two or more; run another seed")
    sizes = {tuple((pair["name"], pair["size"]) for pair in path.pairs) for path in paths.values()}
    if len(sizes) > 1:
        raise ValueError("paths: their models have different units; allowed: seeds of one model; compare those")
    taus = tau_matrix(paths)
    overlaps = overlap_over_budget(paths)
    figure = new_figure(TEXT_WIDTH, 2.6)
    figure.suptitle(title)
    support, matrix, overlap = figure.subplots(1, 3)
    entries = _draw_support(support, paths)
    _draw_tau(figure, matrix, taus, list(paths))
    _draw_overlap(overlap, overlaps)
    legend_below(figure, entries)
    return Drawing(name, title, figure, CAPTION.format(num_seeds=len(paths)), tuple(_tidy(paths, taus, overlaps)))


def tau_matrix(paths: Mapping[int, PathArrays]) -> Array:
    """Kendall's tau of the times of entry between all seeds, (num_seeds, num_seeds); 1 on the diagonal."""
    times = [entry_times(path) for path in paths.values()]
    taus = np.eye(len(times))
    for a, b in combinations(range(len(times)), 2):
        taus[a, b] = taus[b, a] = kendall_tau(times[a], times[b])
    return taus


def overlap_over_budget(paths: Mapping[int, PathArrays]) -> dict[tuple[int, int], Array]:
    """By pair of seeds, overlap of their supports and that of random ones at each of BUDGETS, (num_budgets, 2)."""
    shares = {seed: _cost_up_to(path) for seed, path in paths.items()}
    found = {}
    for a, b in combinations(paths, 2):
        supports = [(shares[a] <= budget + 1e-9, shares[b] <= budget + 1e-9) for budget in BUDGETS]
        found[a, b] = np.array([[support_overlap(*pair), chance_overlap(*pair)] for pair in supports])
    return found


def _cost_up_to(path: PathArrays) -> Array:
    """Of the FLOPs of all units, the share that a unit and all better ones cost, (num_units,)."""
    order, costs = unit_order(path), unit_costs(path, "macs")
    shares = np.empty(len(costs))
    shares[order] = np.cumsum(costs[order]) / costs.sum()
    return shares


def _supports(paths: Mapping[int, PathArrays], kind: str) -> tuple[Array, Array]:
    """Steps, (NUM_STEPS,), and the support of a kind there in percent, (num_seeds, NUM_STEPS)."""
    steps = np.linspace(0, min(path.num_steps for path in paths.values()), NUM_STEPS)
    return steps, np.stack([np.interp(steps, path.steps, support_share(path, kind)) for path in paths.values()])


def _kinds(paths: Mapping[int, PathArrays]) -> list[str]:
    return [kind for kind in UNIT_KINDS if next(iter(paths.values())).of_kind(kind)]


def _draw_support(axes: Any, paths: Mapping[int, PathArrays]) -> dict[str, Any]:
    entries = {}
    for kind in _kinds(paths):
        style, (steps, shares) = UNIT_KIND_STYLES[kind], _supports(paths, kind)
        axes.fill_between(steps, shares.min(axis=0), shares.max(axis=0), color=style.color, alpha=0.25, linewidth=0)
        (entries[UNIT_KINDS[kind]],) = axes.plot(steps, shares.mean(axis=0), color=style.color, linestyle=style.line)
    axes.set(title="in the support", xlabel="search step", ylabel="units (%)", xlim=(0, steps[-1]), ylim=(-2, 105))
    return entries


def _draw_tau(figure: Any, axes: Any, taus: Array, seeds: list[int]) -> None:
    image = axes.imshow(taus, cmap="cividis", vmin=min(0.0, float(np.nanmin(taus))), vmax=1)
    ticks = range(len(seeds))
    axes.set(title="order of entry", xlabel="seed", ylabel="seed")
    axes.set_xticks(ticks, [str(seed) for seed in seeds])
    axes.set_yticks(ticks, [str(seed) for seed in seeds])
    axes.spines[:].set_visible(False)
    if len(seeds) <= MAX_SEEDS_WITH_NUMBERS:
        for row in ticks:
            for column in ticks:
                tau = taus[row, column]
                color = "white" if image.norm(tau) < 0.55 else "black"
                axes.text(column, row, f"{tau:.2f}", ha="center", va="center", color=color, fontsize="small")
    figure.colorbar(image, ax=axes, label="Kendall's tau", shrink=0.9, pad=0.03)


def label_overlap(axes: Any) -> None:
    """Axes of an overlap of supports, in percent, over the share of FLOPs that is kept."""
    axes.set(
        title="same units",
        xlabel="FLOPs of the units kept (%)",
        ylabel="overlap of supports (%)",
        xlim=(0, 100),
        ylim=(0, 105),
    )


def _draw_overlap(axes: Any, overlaps: Mapping[tuple[int, int], Array]) -> None:
    values = 100 * np.stack(list(overlaps.values()))
    percent = 100 * BUDGETS
    ours, chance = values[:, :, 0], values[:, :, 1].mean(axis=0)
    axes.fill_between(percent, ours.min(axis=0), ours.max(axis=0), color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(percent, ours.mean(axis=0), color=BLACK, linewidth=1.4, label="searches")
    axes.plot(percent, chance, color=GREY, linestyle=":", label="chance")
    label_overlap(axes)
    axes.legend(loc="upper left", handlelength=1.6)


def _tidy(
    paths: Mapping[int, PathArrays], taus: Array, overlaps: Mapping[tuple[int, int], Array]
) -> Iterator[Mapping[str, Any]]:
    """Rows of all panels: support (percent), tau, overlap and chance (shares of 1)."""

    def row(panel: str, seed: int, value: float, **more: Any) -> Mapping[str, Any]:
        columns = {"panel": panel, "seed": seed, "other_seed": None, "kind": None, "step": None, "budget": None}
        return {**columns, **more, "value": value if np.isfinite(value) else None}

    for kind in _kinds(paths):
        steps, shares = _supports(paths, kind)
        for seed, values in zip(paths, shares.tolist(), strict=True):
            for step, value in zip(steps.tolist(), values, strict=True):
                yield row("support", seed, value, kind=kind, step=step)
    for a, b in combinations(range(len(paths)), 2):
        seeds = list(paths)
        yield row("tau", seeds[a], float(taus[a, b]), other_seed=seeds[b])
    for (seed, other), values in overlaps.items():
        for budget, (overlap, chance) in zip(BUDGETS.tolist(), values.tolist(), strict=True):
            yield row("overlap", seed, overlap, other_seed=other, budget=budget)
            yield row("chance", seed, chance, other_seed=other, budget=budget)
