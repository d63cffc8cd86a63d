"""Accuracy over size: one line per method, the dense network, and the paper's numbers as hollow markers."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure
from spp.report.figures.curves import CurvePoint, Place, by_series, curve, dense_accuracy, num_images, places
from spp.report.palette import DENSE, Series, Style, styles
from spp.report.published import Published, PublishedValue

MAX_SERIES = 14
"""Lines in one picture; the methods themselves come before their variants."""
PANELS = {"top1": "after finetuning", "top1_before": "before finetuning"}


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each model, data set and kind of budget."""
    return [_drawing(place, rows, published) for place, rows in places(record.rows).items()]


def _drawing(place: Place, rows: Sequence[Row], published: Published) -> Drawing:
    series = by_series(rows)
    shown = dict(sorted(series.items(), key=lambda item: bool(item[0].variant))[:MAX_SERIES])
    curves = {metric: [curve(one, series[one], place, metric) for one in series] for metric in PANELS}
    metrics = [metric for metric in PANELS if any(curves[metric])]
    values = [(value, size) for value in published.values if (size := _size(value, place, rows)) is not None]
    looks = styles([*shown, *(Series(value.method) for value, _ in values)])
    figure = new_figure(TEXT_WIDTH, 2.7)
    entries: dict[str, Any] = {}
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for points in curves[metric]:
            if points and points[0].series in shown:
                entries.setdefault(points[0].series.label, draw_curve(axes, points, looks[points[0].series]))
        entries |= draw_dense(axes, dense_accuracy(rows))
        axes.set(title=PANELS[metric], xlabel=place.size_label, ylabel="top-1 (%)")
        axes.margins(0.06)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        if metric == "top1":
            entries |= draw_published(axes, values, looks)
    legend_below(figure, entries)
    figure.suptitle(f"Accuracy of {place.title}")
    return Drawing(
        file_stem("accuracy", place.stem),
        f"Accuracy of {place.title}",
        figure,
        _caption(place, rows, values, len(series) - len(shown)),
        tuple(_tidy(place, curves, rows, values)),
    )


def draw_curve(axes: Any, points: Sequence[CurvePoint], style: Style, **changes: Any) -> Any:
    """Draw a curve with bars of one standard deviation; `changes` are words of Matplotlib. Returns its artist."""
    container = axes.errorbar(
        [point.size for point in points],
        [point.value for point in points],
        yerr=[point.deviation or 0.0 for point in points] if any(point.deviation for point in points) else None,
        elinewidth=0.7,
        capsize=1.5,
        **{**style.artist(), **changes},
    )
    return container


def draw_dense(axes: Any, accuracies: Sequence[float]) -> dict[str, Any]:
    """Draw the dense network's mean accuracy as a level; returns its entry in the legend."""
    level = mean(accuracies)
    line = axes.axhline(level, **DENSE.artist(), zorder=1)
    return {f"dense ({level:.1f} %)": line}


def draw_published(
    axes: Any, values: Sequence[tuple[PublishedValue, float]], looks: Mapping[Series, Style]
) -> dict[str, Any]:
    """Draw published values at their sizes as hollow markers; returns their entries in the legend."""
    entries = {}
    for value, size in values:
        style = looks[Series(value.method)]
        (marker,) = axes.plot(
            size,
            value.value,
            linestyle="",
            marker=style.marker,
            markersize=8,
            markerfacecolor="none",
            markeredgecolor=style.color,
            markeredgewidth=1.5,
            zorder=5,
        )
        entries[f"{value.method}, published"] = marker
    return entries


def _size(value: PublishedValue, place: Place, rows: Sequence[Row]) -> float | None:
    """Where a published value belongs on the x axis; None if it belongs elsewhere or its size is not known."""
    is_here = (value.model, value.data, value.metric) == (place.model, place.data, "top1")
    if not is_here:
        return None
    count = value.params if place.size_column == "params" else value.macs
    if count is None and value.budget is not None and value.budget_kind == place.size_column:
        count = value.budget * rows[0][f"dense_{place.size_column}"] if value.budget <= 1 else value.budget
    return None if count is None else count / place.size_scale


def _caption(
    place: Place, rows: Sequence[Row], values: Sequence[tuple[PublishedValue, float]], num_left_out: int
) -> str:
    num_seeds = max(point.num_seeds for one, found in by_series(rows).items() for point in curve(one, found, place))
    sentences = [
        f"Top-1 on {num_images(rows)} over the achieved {place.size_label} of one image; FLOPs are multiply-adds.",
    ]
    if num_seeds > 1:
        sentences.append(f"Mean and standard deviation over up to {num_seeds} seeds.")
    sentences.append("The dotted level is the dense network before any pruning.")
    if values:
        sources = "; ".join(dict.fromkeys(f"{value.method} {value.value:g}: {value.source}" for value, _ in values))
        sentences.append(f"Hollow markers are published numbers, not ours ({sources}).")
    if num_left_out:
        sentences.append(f"{num_left_out} more variants are in the data beside the picture.")
    return " ".join(sentences)


def _tidy(
    place: Place,
    curves: Mapping[str, Sequence[Sequence[CurvePoint]]],
    rows: Sequence[Row],
    values: Sequence[tuple[PublishedValue, float]],
) -> Iterator[Mapping[str, Any]]:
    for metric, lines in curves.items():
        for points in lines:
            for point in points:
                yield point.tidy(place, source="measured", metric=metric)
    dense = dense_accuracy(rows)
    deviation = stdev(dense) if len(dense) > 1 else None
    yield {"source": "measured", "metric": "top1", "method": "dense", "value": mean(dense), "deviation": deviation}
    for value, size in values:
        yield {
            "source": value.source,
            "metric": "top1",
            "method": value.method,
            place.size_name: size,
            "value": value.value,
        }
