"""Table 8 as a heat map: a metric over kappa and lambda, one panel for each budget."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from spp.record.metrics import MetricInfo, headline, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, TITLE_PT, Drawing, house_style, new_figure, text_width
from spp.report.figures.curves import samples_text
from spp.report.groups import metric_columns, size_text
from spp.report.palette import shorten
from spp.report.published import Published
from spp.report.tables.table8 import (
    Grid,
    axes_of,
    grid_names,
    grids_of,
    has_settings,
    metric_words,
    setting,
    setting_text,
)

MAX_PANELS = 6
CAPTION = (
    "{metric} on {samples} after finetuning, for each kappa and lambda{seeds}; darker is lower in the same panel, "
    "hatched was not run. `default` is the preset's own value. A panel is a budget in achieved {kind}.{left_out}"
)


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each preset, workload and kind of budget that has more than one setting."""
    grids = {grid: rows for grid, rows in grids_of(record.rows).items() if has_settings(rows)}
    names = grid_names(grids)
    return [_drawing(grid, rows, names[grid]) for grid, rows in grids.items()]


def _drawing(grid: Grid, rows: Sequence[Row], name: str) -> Drawing:
    budgets = sorted({row["budget_asked"] for row in rows}, reverse=True)
    metric = headline(rows)
    kappas, lams = axes_of(rows)
    cells: dict[tuple[float, float | None, float | None], list[float]] = {}
    for row in rows:
        for value in values_of([row], metric.name):
            cells.setdefault((row["budget_asked"], *setting(row)), []).append(value)
    drawn = budgets[:MAX_PANELS]
    num_columns = min(len(drawn), 2 if len(drawn) == 4 else 3)
    num_lines = -(-len(drawn) // num_columns)
    panel_height = 1.0 + 0.26 * len(kappas)
    width = TEXT_WIDTH if num_columns > 1 else 1.9 + 0.55 * len(lams)
    title = f"kappa and lambda: {shorten(grid.label)}, {grid.model} on {grid.data}"
    figure = new_figure(max(width, text_width(title, TITLE_PT) + 0.2), 0.4 + num_lines * panel_height)
    panels = figure.subplots(num_lines, num_columns, squeeze=False)
    for axes in panels.flat[len(drawn) :]:
        axes.remove()
    for axes, budget in zip(panels.flat, drawn, strict=False):
        _draw_panel(axes, cells, budget, kappas, lams, metric)
    figure.suptitle(title)
    num_seeds = max((len(values) for values in cells.values()), default=0)
    caption = CAPTION.format(
        metric=metric_words(metric),
        samples=samples_text(rows, metric),
        seeds=f", mean over {num_seeds} seeds" if num_seeds > 1 else "",
        kind="FLOPs" if grid.budget_kind == "macs" else grid.budget_kind,
        left_out=f" {len(budgets) - len(drawn)} smaller budgets are in the data." if len(budgets) > len(drawn) else "",
    )
    data = tuple(_tidy(grid, *cell, values, metric) for cell, values in cells.items())
    return Drawing(name, title, figure, caption, data)


def _draw_panel(
    axes: Any,
    cells: Mapping[tuple[float, float | None, float | None], Sequence[float]],
    budget: float,
    kappas: Sequence[float | None],
    lams: Sequence[float | None],
    metric: MetricInfo,
) -> None:
    values = np.array(
        [
            [mean(cells[budget, kappa, lam]) if (budget, kappa, lam) in cells else np.nan for lam in lams]
            for kappa in kappas
        ]
    )
    low, high = np.nanmin(values), np.nanmax(values)
    # The upper part of the map is bright in all cells, so that black numbers can be read, also in grey.
    span = max(high - low, 10.0 ** -metric.digits(float(high)))
    axes.patch.set(facecolor="0.95", hatch="////", edgecolor="0.8", linewidth=0)
    axes.imshow(values, cmap="cividis", vmin=low - 1.2 * span, vmax=low + span, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(column, row, metric.number(float(value)), ha="center", va="center", fontsize="small")
    axes.set_xticks(range(len(lams)), [setting_text(lam) for lam in lams])
    axes.set_yticks(range(len(kappas)), [setting_text(kappa) for kappa in kappas])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title=f"{metric.title}, budget {size_text(budget)}", xlabel="lambda", ylabel="kappa")


def _tidy(
    grid: Grid, budget: float, kappa: float | None, lam: float | None, values: Sequence[float], metric: MetricInfo
) -> Mapping[str, Any]:
    return {
        **grid._asdict(),
        "budget_asked": budget,
        "kappa": kappa,
        "lam": lam,
        **metric_columns(values, metric),
        "num_seeds": len(values),
    }
