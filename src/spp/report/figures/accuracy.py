"""A metric over size: one line per method, the dense network, and the paper's numbers as hollow markers."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from spp.record.metrics import AFTER, BEFORE, REPAIRED, MetricInfo, counts_of, headline, metrics_to_dense
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure
from spp.report.figures.curves import CurvePoint, Panel, by_series, curve, dense_values, panels, samples_text
from spp.report.groups import metric_columns
from spp.report.palette import DENSE_STYLE, Series, Style, styles
from spp.report.published import Published, PublishedValue, quality_name

MAX_SERIES = 14
"""Lines in one picture; the methods themselves come before their variants."""
MAX_SHIFT_PT, SHIFTS_PT = 1.5, 10.0
"""Points between neighbouring curves, and over all of them."""
TITLES = {AFTER: "after finetuning", REPAIRED: "repaired", BEFORE: "before finetuning"}
"""Of the parts of a picture, by the column of the rows that they show."""


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """For each workload and kind of budget a drawing of the headline, and one of each distance to the dense network."""
    return [
        _drawing(panel, rows, metric, published)
        for panel, rows in panels(record.rows).items()
        for metric in (headline(rows), *metrics_to_dense(rows))
    ]


def _drawing(panel: Panel, rows: Sequence[Row], metric: MetricInfo, published: Published) -> Drawing:
    series = by_series(rows)
    shown = dict(sorted(series.items(), key=lambda item: bool(item[0].variant))[:MAX_SERIES])
    curves = {column: [curve(one, series[one], panel, metric, column) for one in series] for column in TITLES}
    columns = [column for column in TITLES if any(curves[column])]
    values = [(value, size) for value in published.values if (size := _size(value, panel, rows, metric)) is not None]
    looks = styles([*shown, *(Series(value.method) for value, _ in values)])
    figure = new_figure(TEXT_WIDTH, 2.7)
    is_distance = metric.unit != "%" and metric in metrics_to_dense(rows)
    places = figure.subplots(1, len(columns), squeeze=False, sharey=is_distance)[0]
    entries: dict[str, Any] = {}
    for axes, column in zip(places, columns, strict=True):
        for points in curves[column]:
            if points and points[0].series in shown:
                one = points[0].series
                place = (list(shown).index(one), len(shown))
                entries.setdefault(one.label, draw_curve(axes, points, looks[one], place))
        entries |= draw_dense(axes, dense_values(rows, metric), metric, _dense_size(panel, rows))
        axes.set(title=TITLES[column], xlabel=panel.size_label, ylabel=metric.title)
        if is_distance:
            axes.set_yscale("log")  # distances span decades
            axes.locator_params(axis="y", subs=(1, 2, 5))
            axes.yaxis.set_major_formatter("{x:.2g}")
            axes.yaxis.set_minor_formatter("")
            axes.label_outer()
        axes.margins(0.06)
        axes.locator_params(axis="x", nbins=6 - len(columns))
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        if column == AFTER:
            entries |= draw_published(axes, values, looks)
    legend_below(figure, entries)
    title = f"{quality_name(metric)} of {panel.title}"
    figure.suptitle(title)
    return Drawing(
        file_stem("accuracy" if metric == headline(rows) else metric.name, panel.stem),
        title,
        figure,
        _caption(panel, rows, values, len(series) - len(shown), metric),
        tuple(_tidy(panel, curves, rows, values, metric)),
    )


def draw_curve(
    axes: Any, points: Sequence[CurvePoint], style: Style, place: tuple[int, int] = (0, 1), **changes: Any
) -> Any:
    """Draw a curve with bars of one standard deviation; returns its artist.

    Args:
        axes: to draw in.
        points: of the curve.
        style: of the curve.
        place: which of how many it is; each is moved a little to the side, so that their bars do not hide each other.
        changes: of the style, in words of Matplotlib.
    """
    from matplotlib.transforms import ScaledTranslation

    number, count = place
    shift_pt = (number - (count - 1) / 2) * min(MAX_SHIFT_PT, SHIFTS_PT / count)
    container = axes.errorbar(
        [point.size for point in points],
        [point.value for point in points],
        yerr=[point.deviation or 0.0 for point in points] if any(point.deviation for point in points) else None,
        elinewidth=0.7,
        capsize=1.5,
        transform=axes.transData + ScaledTranslation(shift_pt / 72, 0, axes.figure.dpi_scale_trans),
        **{**style.artist(), **changes},
    )
    # Matplotlib takes no limits from what is moved.
    for sign in (-1, 1):
        axes.update_datalim([(at.size, at.value + sign * (at.deviation or 0.0)) for at in points])
    return container


def _dense_size(panel: Panel, rows: Sequence[Row]) -> float:
    return float(mean(row[f"dense_{panel.size_column}"] for row in rows) / panel.size_scale)


def draw_dense(axes: Any, values: Sequence[float], metric: MetricInfo, size: float | None = None) -> dict[str, Any]:
    """Draw the dense network's mean as a level, with a band of one standard deviation over its seeds, and as a point at
    its own size; returns its entry in the legend, none where nothing was measured."""
    if not values:
        return {}
    level = mean(values)
    line = axes.axhline(level, **DENSE_STYLE.artist(), zorder=1)
    if len(values) > 1:
        deviation = stdev(values)
        axes.axhspan(level - deviation, level + deviation, color="0.94", linewidth=0, zorder=0)
    if size is not None:
        axes.plot(size, level, marker="*", markersize=8, color=DENSE_STYLE.color, linestyle="", zorder=4)
    return {f"dense ({metric.text(level)})": line}


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


def _size(value: PublishedValue, panel: Panel, rows: Sequence[Row], metric: MetricInfo) -> float | None:
    """Where a published value belongs on the x axis; None if it belongs elsewhere or its size is not known."""
    is_here = (value.model, value.data) == (panel.workload.model, panel.workload.data)
    if not is_here or value.metric != metric.name:
        return None
    count = value.params if panel.size_column == "params" else value.macs
    if count is None and value.budget is not None and value.budget_kind == panel.size_column:
        count = value.budget * rows[0][f"dense_{panel.size_column}"] if value.budget <= 1 else value.budget
    return None if count is None else count / panel.size_scale


def _caption(
    panel: Panel,
    rows: Sequence[Row],
    values: Sequence[tuple[PublishedValue, float]],
    num_left_out: int,
    metric: MetricInfo,
) -> str:
    curves = [curve(one, found, panel, metric) for one, found in by_series(rows).items()]
    num_seeds = max((point.num_seeds for points in curves for point in points), default=0)
    sentences = [
        f"{metric.description} on {samples_text(rows, metric)} over the achieved {panel.size_label} of one "
        f"{metric.sample}; FLOPs are multiply-adds.",
    ]
    if num_seeds > 1:
        sentences.append(f"Mean and standard deviation over up to {num_seeds} seeds.")
    dense = dense_values(rows, metric)
    if dense:
        band = ", the band its standard deviation over seeds" * (len(dense) > 1)
        sentences.append(f"The star and the dotted level are the dense network before any pruning{band}.")
    counts = counts_of(rows, metric.name)
    if metric.unit == "%" and len(counts) == 1:
        sentences.append(f"One {metric.sample} of {counts[0]:,} is {100 / counts[0]:.2g} points.")
    if values:
        sources = "; ".join(dict.fromkeys(f"{value.method} {value.value:g}: {value.source}" for value, _ in values))
        sentences.append(f"Hollow markers are published numbers, not ours ({sources}).")
    if num_left_out:
        sentences.append(f"{num_left_out} more variants are in the data beside the picture.")
    return " ".join(sentences)


def _tidy(
    panel: Panel,
    curves: Mapping[str, Sequence[Sequence[CurvePoint]]],
    rows: Sequence[Row],
    values: Sequence[tuple[PublishedValue, float]],
    metric: MetricInfo,
) -> Iterator[Mapping[str, Any]]:
    for column, lines in curves.items():
        for points in lines:
            for point in points:
                yield point.tidy(panel, source="measured", metric=metric.name, when=TITLES[column])
    yield {"source": "measured", "method": "dense", **metric_columns(dense_values(rows, metric), metric)}
    for value, size in values:
        yield {
            "source": value.source,
            "metric": metric.name,
            "method": value.method,
            panel.size_name: size,
            "value": value.value,
        }
