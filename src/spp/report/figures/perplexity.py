"""Perplexity over the share of the weights that went: one line per method and update, N:M as hollow markers."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from spp.record.metrics import DENSE, headline, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import COLUMN_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure
from spp.report.figures.accuracy import draw_dense
from spp.report.palette import Series, styles
from spp.report.published import Published
from spp.report.tables.llm import METRIC, Axes, by_axes, rows_of


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each model, text, calibration, length and number of windows, and numbers."""
    panels: dict[tuple[str, str, str, int, int, str], dict[Axes, list[Row]]] = {}
    for axes, rows in by_axes(rows_of(record)).items():
        panel = (axes.model, axes.text, axes.calibration, axes.length, axes.num_windows, axes.dtype)
        panels.setdefault(panel, {})[axes] = rows
    return [_drawing(panel, groups) for panel, groups in panels.items()]


def _drawing(panel: tuple[str, str, str, int, int, str], groups: Mapping[Axes, Sequence[Row]]) -> Drawing:
    model, text, calibration, length, num_windows, dtype = panel
    lines: dict[Series, dict[float, list[float]]] = {}
    patterns: dict[Series, list[tuple[str, float, float]]] = {}
    data: list[Mapping[str, Any]] = []
    for axes, rows in groups.items():
        values, share = values_of(rows, METRIC), 1 - rows[0]["budget_asked"]
        if not values:
            continue
        one = _series(axes)
        if ":" in axes.pattern:
            patterns.setdefault(one, []).append((axes.pattern, 100 * share, mean(values)))
        else:
            lines.setdefault(one, {})[100 * share] = values
        deviation = stdev(values) if len(values) > 1 else None
        data.append({**axes._asdict(), "removed_percent": 100 * share, "value": mean(values), "deviation": deviation})
    looks = styles([*lines, *patterns])
    figure = new_figure(COLUMN_WIDTH, 3.0)
    axes_of_figure = figure.subplots()
    entries: dict[str, Any] = {}
    for one, by_share in lines.items():
        shares = sorted(by_share)
        (artist,) = axes_of_figure.plot(shares, [mean(by_share[share]) for share in shares], **looks[one].artist())
        entries[one.label] = artist
    for one, found in patterns.items():
        for pattern, share, value in found:
            (marker,) = axes_of_figure.plot(
                share, value, linestyle="", marker=looks[one].marker, markerfacecolor="none",
                markeredgecolor=looks[one].color,
            )  # fmt: skip
            entries.setdefault(f"{one.label}, {pattern}", marker)
    all_rows = [row for rows in groups.values() for row in rows]
    metric = headline(all_rows)
    entries |= draw_dense(axes_of_figure, values_of(all_rows[:1], METRIC, DENSE), metric)
    axes_of_figure.set(xlabel="weights removed (%)", ylabel="perplexity", yscale="log")
    axes_of_figure.grid(axis="y", which="both", color="0.92", linewidth=0.6)
    axes_of_figure.set_axisbelow(True)
    legend_below(figure, entries)
    title = f"Perplexity of {model} on {text}"
    figure.suptitle(title)
    caption = (
        f"Perplexity (lower is better, logarithmic) on {num_windows} windows of {length} "
        f"tokens over the share of the weights in the decoder layers that went; calibrated on {calibration}, in "
        f"{dtype}. Hollow markers are N:M. The dotted level is the dense network."
    )
    return Drawing(
        file_stem("perplexity", f"{model}-{text}-{calibration}-{num_windows}x{length}-{dtype}"),
        title,
        figure,
        caption,
        tuple(data),
    )


def _series(axes: Axes) -> Series:
    """What one line stands for: the method, its own settings, and the axes that are not as usual."""
    unusual = {"permutation": "none", "update": "none", "allocation": "uniform"}
    words = [getattr(axes, name) for name, usual in unusual.items() if getattr(axes, name) != usual]
    return Series(axes.method, None, " ".join([*words, axes.group, *axes.settings.split()]))
