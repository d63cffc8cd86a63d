"""Figure 1: a metric over size beside the total cost of the searches, one search for all budgets or one for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean
from typing import Any

from spp.record.metrics import MetricInfo, headline
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure, write_beside_bars
from spp.report.figures.accuracy import MAX_SERIES, draw_curve, draw_dense
from spp.report.figures.curves import CurvePoint, Panel, by_series, curve, dense_values, panels, samples_text
from spp.report.groups import metric_columns, num_searches, search_rows
from spp.report.palette import Series, Style, styles
from spp.report.published import Published, quality_name

HATCH = "////"
"""On the bars of methods that search once for each budget."""

CAPTION = (
    "Left: {metric} on {samples} after finetuning over the achieved {size} of one {sample}{deviation}; a line joins "
    "the members of one search, single markers took a search each, and the area of a marker grows with the epochs of "
    "all searches. Right: epochs of search and walk that one seed needed for all its budgets; hatched: one search per "
    "budget. The dotted level is the dense network; its training and the finetuning are not counted."
)


@dataclass(frozen=True)
class SearchCost:
    """What the searches of one series took for one seed, mean over its seeds."""

    num_searches: float
    num_members: float
    epochs: float
    seconds: float
    gpu_seconds: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "SearchCost":
        """The cost of members, of one or several seeds."""
        seeds = {row["seed"] for row in rows}
        by_seed = [[row for row in rows if row["seed"] == seed] for seed in seeds]
        searches = [search_rows(members) for members in by_seed]

        def total(column: str) -> float:
            return float(mean(sum(row[column] for row in found) for found in searches))

        return cls(
            mean(num_searches(found) for found in searches),
            mean(len(members) for members in by_seed),
            total("epochs_search"),
            total("search_seconds"),
            total("search_gpu_seconds"),
        )

    @property
    def is_shared(self) -> bool:
        """Whether a search served several members."""
        return self.num_searches < self.num_members

    @property
    def text(self) -> str:
        """For a bar: 5 searches, 26.7 GPU-h."""
        searches = f"{self.num_searches:g} search{'' if self.num_searches == 1 else 'es'}"
        hours = self.gpu_seconds / 3600
        return f"{searches}, {hours:.3g} GPU-h" if hours else f"{searches}, {self.seconds:.3g} s"


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each workload and kind of budget."""
    found = panels(record.rows)
    return [
        _drawing(panel, rows, "figure1" if len(found) == 1 else file_stem("figure1", panel.stem))
        for panel, rows in found.items()
    ]


def _drawing(panel: Panel, rows: Sequence[Row], name: str) -> Drawing:
    metric = headline(rows)
    series = by_series(rows)
    shown = dict(sorted(series.items(), key=lambda item: bool(item[0].variant))[:MAX_SERIES])
    curves = {one: curve(one, members, panel, metric) for one, members in series.items()}
    costs = {one: SearchCost.of(members) for one, members in series.items()}
    looks = styles(shown)
    figure = new_figure(TEXT_WIDTH, max(2.6, 1.0 + 0.2 * len(shown)))
    quality, bars = figure.subplots(1, 2, width_ratios=[1.15, 1])
    entries: dict[str, Any] = {}
    most = max(costs[one].epochs for one in shown) or 1.0
    for number, one in enumerate(shown):
        if curves[one]:
            size = 3 + 4 * sqrt(costs[one].epochs / most)
            line = {} if costs[one].is_shared else {"linestyle": ""}
            entries[one.label] = draw_curve(
                quality, curves[one], looks[one], (number, len(shown)), markersize=size, zorder=3 - size / 10, **line
            )
    entries |= draw_dense(quality, dense_values(rows, metric), metric)
    quality.set(title="after finetuning", xlabel=panel.size_label, ylabel=metric.title)
    quality.margins(0.06)
    quality.locator_params(axis="x", nbins=5)
    _draw_costs(bars, {one: costs[one] for one in shown}, looks)
    legend_below(figure, entries)
    title = f"{quality_name(metric)} and search cost of {panel.title}"
    figure.suptitle(title)
    has_seeds = any(point.deviation is not None for points in curves.values() for point in points)
    caption = CAPTION.format(
        metric=metric.label + metric.direction,
        samples=samples_text(rows, metric),
        size=panel.size_label,
        sample=metric.sample,
        deviation=", mean ± standard deviation over seeds" * has_seeds,
    )
    return Drawing(name, title, figure, caption, tuple(_tidy(panel, curves, costs, rows, metric)))


def _draw_costs(axes: Any, costs: Mapping[Series, SearchCost], looks: Mapping[Series, Style]) -> None:
    for position, (one, cost) in enumerate(costs.items()):
        axes.barh(
            position,
            cost.epochs,
            height=0.7,
            color="white" if not cost.is_shared else looks[one].color,
            edgecolor=looks[one].color,
            hatch=None if cost.is_shared else HATCH,
        )
    axes.set_yticks(range(len(costs)), [one.label for one in costs])
    axes.invert_yaxis()
    axes.set(title="all searches of one seed", xlabel="search and walk (epochs)")
    most = max([1.0, *(cost.epochs for cost in costs.values())])
    write_beside_bars(axes, (cost.text for cost in costs.values()))
    axes.set_xlim(0, 1.9 * most)  # room for the words
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1.05 * most])


def _tidy(
    panel: Panel,
    curves: Mapping[Series, Sequence[CurvePoint]],
    costs: Mapping[Series, SearchCost],
    rows: Sequence[Row],
    metric: MetricInfo,
) -> Iterator[Mapping[str, Any]]:
    for one, points in curves.items():
        for point in points:
            yield point.tidy(
                panel, metric=metric.name, **{f"search_{name}": value for name, value in vars(costs[one]).items()}
            )
    yield {"method": "dense", **metric_columns(dense_values(rows, metric), metric)}
