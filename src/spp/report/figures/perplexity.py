"""Perplexity over the share of the weights that went; of one share alone, a row for each method and update."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from spp.record.metrics import DENSE, MetricInfo, headline, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import COLUMN_WIDTH, TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure
from spp.report.figures.accuracy import draw_dense
from spp.report.palette import Series, shorten, styles
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
    found = {axes: values for axes, rows in groups.items() if (values := values_of(rows, METRIC))}
    removed = {axes: 100 * (1 - groups[axes][0]["budget_asked"]) for axes in found}
    all_rows = [row for rows in groups.values() for row in rows]
    dense = values_of(all_rows[:1], METRIC, DENSE)
    is_one_share = len(set(removed.values())) == 1
    figure = _ladders(found, dense) if is_one_share else _curves(found, removed, dense, headline(all_rows))
    title = f"Perplexity of {model} on {text}"
    figure.suptitle(title)
    shape = (
        f"where {next(iter(removed.values())):g} % of the weights in the decoder layers went, by what chose them and "
        "what updated the others; bars: deviation over seeds. The"
        if is_one_share
        else "over the share of the weights in the decoder layers that went. Hollow markers are N:M. The"
    )
    caption = (
        f"Perplexity (lower is better, logarithmic) on {num_windows} windows of {length} tokens, {shape} dotted level "
        f"is the dense network. Calibrated on {calibration}, in {dtype}."
    )
    data = [
        {
            **axes._asdict(),
            "removed_percent": removed[axes],
            "value": mean(values),
            "deviation": stdev(values) if len(values) > 1 else None,
        }
        for axes, values in found.items()
    ]
    stem = file_stem("perplexity", f"{model}-{text}-{calibration}-{num_windows}x{length}-{dtype}")
    return Drawing(stem, title, figure, caption, tuple(data))


def _ladders(found: Mapping[Axes, Sequence[float]], dense: Sequence[float]) -> Any:
    """One share of all: a panel for each pattern with a row for each method, the best on top."""
    patterns = sorted({axes.pattern for axes in found}, key=lambda pattern: (":" in pattern, pattern))
    most = max(sum(axes.pattern == pattern for axes in found) for pattern in patterns)
    figure = new_figure(TEXT_WIDTH, 0.9 + 0.24 * most)
    looks = styles([_series(axes) for axes in found])
    for place, pattern in zip(figure.subplots(1, len(patterns), squeeze=False)[0], patterns, strict=True):
        rows = sorted((mean(values), axes) for axes, values in found.items() if axes.pattern == pattern)
        for number, (value, axes) in enumerate(rows):
            values, look = found[axes], looks[_series(axes)]
            deviation = stdev(values) if len(values) > 1 else None
            place.errorbar(value, number, xerr=deviation, color=look.color, marker=look.marker, linestyle="")
        for level in dense[:1]:
            place.axvline(level, color="black", linestyle=":")
        place.set_yticks(range(len(rows)), [_row_label(axes, found) for _, axes in rows])
        place.set(title=pattern, xlabel="perplexity", xscale="log", ylim=(len(rows) - 0.5, -0.5))
        _plain_ticks(place, "x")
        place.grid(axis="x", color="0.92", linewidth=0.6)
        place.set_axisbelow(True)
    return figure


def _row_label(axes: Axes, found: Iterable[Axes]) -> str:
    """The method and what is not as usual; its own settings only where another row has the same words."""
    words = [axes.method, *_unusual(axes)]
    alike = [one for one in found if one.pattern == axes.pattern and [one.method, *_unusual(one)] == words]
    return shorten(" ".join(words if len(alike) == 1 else [*words, axes.group, axes.settings]))


def _curves(
    found: Mapping[Axes, Sequence[float]], removed: Mapping[Axes, float], dense: Sequence[float], metric: MetricInfo
) -> Any:
    """A line for each method over the shares, N:M as hollow markers."""
    lines: dict[Series, dict[float, float]] = {}
    patterns: dict[Series, list[Axes]] = {}
    for axes, values in found.items():
        if ":" in axes.pattern:
            patterns.setdefault(_series(axes), []).append(axes)
        else:
            lines.setdefault(_series(axes), {})[removed[axes]] = mean(values)
    looks = styles([*lines, *patterns])
    figure = new_figure(COLUMN_WIDTH, 3.0)
    place = figure.subplots()
    entries: dict[str, Any] = {}
    for one, by_share in lines.items():
        shares = sorted(by_share)
        (artist,) = place.plot(shares, [by_share[share] for share in shares], **looks[one].artist())
        entries[one.label] = artist
    for one, members in patterns.items():
        for axes in members:
            (marker,) = place.plot(
                removed[axes], mean(found[axes]), linestyle="", marker=looks[one].marker, markerfacecolor="none",
                markeredgecolor=looks[one].color,
            )  # fmt: skip
            entries.setdefault(f"{one.label}, {axes.pattern}", marker)
    entries |= draw_dense(place, dense, metric)
    place.set(xlabel="weights removed (%)", ylabel="perplexity", yscale="log")
    _plain_ticks(place, "y")
    place.grid(axis="y", which="both", color="0.92", linewidth=0.6)
    place.set_axisbelow(True)
    legend_below(figure, entries)
    return figure


def _plain_ticks(place: Any, axis: str) -> None:
    """Numbers as people write them on a logarithmic axis."""
    place.locator_params(axis=axis, subs=(1, 3))
    of_axis = getattr(place, f"{axis}axis")
    of_axis.set_major_formatter("{x:g}")
    of_axis.set_minor_formatter("")


def _series(axes: Axes) -> Series:
    """What one line stands for: the method, its own settings, and the axes that are not as usual."""
    return Series(axes.method, None, " ".join([*_unusual(axes), axes.group, *axes.settings.split()]))


def _unusual(axes: Axes) -> list[str]:
    usual = {"permutation": "none", "update": "none", "allocation": "uniform"}
    return [getattr(axes, name) for name, value in usual.items() if getattr(axes, name) != value]
