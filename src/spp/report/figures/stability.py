"""Stability across seeds: how far the members lie apart, and how equal the searches' orders and supports are."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from spp.record.metrics import MetricInfo, headline
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure
from spp.report.figures.accuracy import MAX_SERIES
from spp.report.figures.curves import CurvePoint, Panel, by_series, curve, panels
from spp.report.figures.figure2 import repeated_searches, searches_by_combination
from spp.report.figures.seeds import BUDGETS, label_overlap, overlap_over_budget, tau_matrix
from spp.report.groups import Workload
from spp.report.palette import GREY, Series, Style, styles
from spp.report.path_arrays import Array, read_path
from spp.report.published import Published

MAX_SEEDS = 10
"""Seeds of one combination whose paths are compared: pairs grow with the square."""
MAX_COMBINATIONS = 4

CAPTION = (
    "Standard deviation of {metric} after finetuning over up to {num_seeds} seeds{unit}, over the achieved {size} of "
    "one {sample}.{paths}"
)
PATHS = (
    " Middle: Kendall's tau between the times of entry of two seeds, one dot for each pair of seeds, the line is their "
    "mean; 1 is the same order, 0 no more alike than chance. Right: units that both of two seeds keep, of those that "
    "one of them keeps, mean over the pairs; grey dots: as many units drawn by chance."
)


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each workload and kind of budget with several seeds."""
    found = {panel: rows for panel, rows in panels(record.rows).items() if _repeated(panel, rows)}
    return [
        _drawing(panel, rows, record, "stability" if len(found) == 1 else file_stem("stability", panel.stem))
        for panel, rows in found.items()
    ]


def _repeated(panel: Panel, rows: Sequence[Row]) -> dict[Series, list[CurvePoint]]:
    """By series, its points that are means over several seeds."""
    curves = {one: curve(one, members, panel, headline(rows)) for one, members in by_series(rows).items()}
    repeated = {one: [point for point in points if point.deviation is not None] for one, points in curves.items()}
    return {one: points for one, points in repeated.items() if points}


def _drawing(panel: Panel, rows: Sequence[Row], record: Record, name: str) -> Drawing:
    curves, metric = _repeated(panel, rows), headline(rows)
    shown = sorted(curves, key=lambda one: bool(one.variant))[:MAX_SERIES]
    taus, overlaps = _compare_paths(panel.workload, record)
    looks = styles([*shown, *taus])
    figure = new_figure(TEXT_WIDTH, 2.7)
    parts = figure.subplots(1, 3 if taus else 1, squeeze=False, width_ratios=[1.3, 1, 1] if taus else [1])[0]
    entries = _draw_deviations(parts[0], {one: curves[one] for one in shown}, looks, panel, metric)
    if taus:
        _draw_taus(parts[1], taus, looks)
        entries |= _draw_overlaps(parts[2], overlaps, looks)
    legend_below(figure, entries)
    title = f"Stability across seeds: {panel.title}"
    figure.suptitle(title)
    num_seeds = max(point.num_seeds for points in curves.values() for point in points)
    caption = CAPTION.format(
        metric=metric.label,
        num_seeds=num_seeds,
        unit=f",{metric.in_change_unit}" if metric.unit else "",
        size=panel.size_label,
        sample=metric.sample,
        paths=PATHS if taus else "",
    )
    return Drawing(name, title, figure, caption, tuple(_tidy(panel, curves, taus, overlaps, metric)))


def _compare_paths(
    workload: Workload, record: Record
) -> tuple[dict[Series, dict[tuple[int, int], float]], dict[Series, Array]]:
    """By series: tau of each pair of seeds; overlap and chance at BUDGETS, mean over the pairs, (num_budgets, 2)."""
    taus, overlaps = {}, {}
    here = [path for path in record.paths if Workload.of_source(path) == workload]
    for combination, by_seed in list(repeated_searches(searches_by_combination(here)).items())[:MAX_COMBINATIONS]:
        one = Series.of(combination._asdict())
        paths = {seed: read_path(source.artifacts) for seed, source in list(by_seed.items())[:MAX_SEEDS]}
        matrix = tau_matrix(paths)
        pairs = list(combinations(range(len(paths)), 2))
        taus[one] = {(list(paths)[a], list(paths)[b]): float(matrix[a, b]) for a, b in pairs}
        overlaps[one] = np.mean(list(overlap_over_budget(paths).values()), axis=0)
    return taus, overlaps


def _draw_deviations(
    axes: Any,
    curves: Mapping[Series, Sequence[CurvePoint]],
    looks: Mapping[Series, Style],
    panel: Panel,
    metric: MetricInfo,
) -> dict[str, Any]:
    entries = {}
    for one, points in curves.items():
        sizes, deviations = [point.size for point in points], [point.deviation for point in points]
        (entries[one.label],) = axes.plot(sizes, deviations, **looks[one].artist())
    unit = f" ({metric.change_unit})" if metric.unit else ""
    axes.set(title=f"{metric.label} after finetuning", xlabel=panel.size_label, ylabel=f"standard deviation{unit}")
    axes.set_ylim(0, None)
    axes.locator_params(axis="x", nbins=3)
    return entries


def _draw_taus(
    axes: Any, taus: Mapping[Series, Mapping[tuple[int, int], float]], looks: Mapping[Series, Style]
) -> None:
    for position, (one, by_pair) in enumerate(taus.items()):
        values = [value for value in by_pair.values() if np.isfinite(value)]
        style = looks[one]
        axes.plot([position] * len(values), values, linestyle="", marker=style.marker, color=style.color, alpha=0.7)
        if values:
            axes.hlines(np.mean(values), position - 0.3, position + 0.3, color=style.color)
    lowest = min((value for by_pair in taus.values() for value in by_pair.values() if np.isfinite(value)), default=0.0)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(taus)), [str(one.preset or one.method) for one in taus])
    axes.set(title="order of entry", xlabel="preset", ylabel="Kendall's tau", xlim=(-0.6, len(taus) - 0.4))
    axes.set_ylim(min(-0.05, lowest - 0.05), 1.05)


def _draw_overlaps(axes: Any, overlaps: Mapping[Series, Array], looks: Mapping[Series, Style]) -> dict[str, Any]:
    for one, values in overlaps.items():
        style = looks[one]
        axes.plot(100 * BUDGETS, 100 * values[:, 0], color=style.color, linestyle=style.line)
        (chance,) = axes.plot(100 * BUDGETS, 100 * values[:, 1], color=GREY, linestyle=":", linewidth=1)
    label_overlap(axes)
    return {"units drawn by chance": chance}


def _tidy(
    panel: Panel,
    curves: Mapping[Series, Sequence[CurvePoint]],
    taus: Mapping[Series, Mapping[tuple[int, int], float]],
    overlaps: Mapping[Series, Array],
    metric: MetricInfo,
) -> Iterator[Mapping[str, Any]]:
    for points in curves.values():
        for point in points:
            yield point.tidy(panel, panel="deviation", metric=metric.name)
    for one, by_pair in taus.items():
        for (seed, other_seed), value in by_pair.items():
            found = value if np.isfinite(value) else None
            yield {"panel": "tau", **vars(one), "seed": seed, "other_seed": other_seed, "value": found}
    for one, values in overlaps.items():
        for budget, pair in zip(BUDGETS.tolist(), values.tolist(), strict=True):
            for name, value in zip(("overlap", "chance"), pair, strict=True):
                found = value if np.isfinite(value) else None
                yield {"panel": name, **vars(one), "budget_asked": budget, "value": found}
