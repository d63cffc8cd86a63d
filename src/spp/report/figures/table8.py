"""Table 8 as a heat map: accuracy over kappa and lambda, one panel for each budget."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, new_figure
from spp.report.figures.curves import num_images
from spp.report.groups import size_text
from spp.report.palette import shorten
from spp.report.published import Published

MAX_PANELS = 6
AXES = {"kappa": "method.kappa=", "lam": "method.lam="}
"""The settings of the grid and how a variant words them."""

CAPTION = (
    "Top-1 in percent on {images} after finetuning, for each kappa and lambda{seeds}; darker is lower in the same "
    "panel, hatched was not run. `default` is the preset's own value. A panel is a budget in achieved {kind}.{left_out}"
)


class Grid(NamedTuple):
    """What is the same all over one grid."""

    preset: str | None
    variant: str
    model: str
    data: str
    budget_kind: str

    @property
    def title(self) -> str:
        """For people."""
        details = ", ".join(part for part in (self.preset, self.variant) if part)
        return f"{shorten(f'spp ({details})')}, {self.model} on {self.data}"


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each preset, model, data set and kind of budget that has more than one setting."""
    grids: dict[Grid, list[Row]] = {}
    for row in record.rows:
        if row["method"] == "spp":
            grids.setdefault(_grid(row), []).append(row)
    grids = {grid: rows for grid, rows in grids.items() if len({_setting(row) for row in rows}) > 1}
    return [
        _drawing(grid, rows, "table8" if len(grids) == 1 else file_stem("table8", *grid))
        for grid, rows in grids.items()
    ]


def _grid(row: Row) -> Grid:
    words = [word for word in row["variant"].split() if not word.startswith(tuple(AXES.values()))]
    return Grid(row["preset"], " ".join(words), row["model"], row["data"], row["budget_kind"])


def _setting(row: Row) -> tuple[float | None, float | None]:
    return row["method_config"].get("kappa"), row["method_config"].get("lam")


def _drawing(grid: Grid, rows: Sequence[Row], name: str) -> Drawing:
    budgets = sorted({row["budget_asked"] for row in rows}, reverse=True)
    kappas, lams = (sorted({_setting(row)[axis] for row in rows}, key=_default_first) for axis in (0, 1))
    cells: dict[tuple[float, float | None, float | None], list[float]] = {}
    for row in rows:
        cells.setdefault((row["budget_asked"], *_setting(row)), []).append(row["top1"])
    drawn = budgets[:MAX_PANELS]
    num_columns = min(len(drawn), 2 if len(drawn) == 4 else 3)
    num_lines = -(-len(drawn) // num_columns)
    panel_height = 1.0 + 0.26 * len(kappas)
    width = TEXT_WIDTH if num_columns > 1 else 1.9 + 0.55 * len(lams)
    figure = new_figure(max(width, 3.4), 0.4 + num_lines * panel_height)
    panels = figure.subplots(num_lines, num_columns, squeeze=False)
    for axes in panels.flat[len(drawn) :]:
        axes.remove()
    for axes, budget in zip(panels.flat, drawn, strict=False):
        _draw_panel(axes, cells, budget, kappas, lams)
    title = f"kappa and lambda: {grid.title}"
    figure.suptitle(title)
    num_seeds = max(len(values) for values in cells.values())
    caption = CAPTION.format(
        images=num_images(rows),
        seeds=f", mean over {num_seeds} seeds" if num_seeds > 1 else "",
        kind="FLOPs" if grid.budget_kind == "macs" else grid.budget_kind,
        left_out=f" {len(budgets) - len(drawn)} smaller budgets are in the data." if len(budgets) > len(drawn) else "",
    )
    data = tuple(_tidy(grid, *place, values) for place, values in cells.items())
    return Drawing(name, title, figure, caption, data)


def _draw_panel(
    axes: Any,
    cells: Mapping[tuple[float, float | None, float | None], Sequence[float]],
    budget: float,
    kappas: Sequence[float | None],
    lams: Sequence[float | None],
) -> None:
    values = np.array(
        [
            [mean(cells[budget, kappa, lam]) if (budget, kappa, lam) in cells else np.nan for lam in lams]
            for kappa in kappas
        ]
    )
    low, high = np.nanmin(values), np.nanmax(values)
    # The upper part of the map is bright in all cells, so that black numbers can be read, also in grey.
    span = max(high - low, 0.1)
    axes.patch.set(facecolor="0.95", hatch="////", edgecolor="0.8", linewidth=0)
    axes.imshow(values, cmap="cividis", vmin=low - 1.2 * span, vmax=low + span, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize="small")
    axes.set_xticks(range(len(lams)), [_text(lam) for lam in lams])
    axes.set_yticks(range(len(kappas)), [_text(kappa) for kappa in kappas])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title=f"top-1 (%), budget {size_text(budget)}", xlabel="lambda", ylabel="kappa")


def _tidy(
    grid: Grid, budget: float, kappa: float | None, lam: float | None, values: Sequence[float]
) -> Mapping[str, Any]:
    return {
        **grid._asdict(),
        "budget_asked": budget,
        "kappa": kappa,
        "lam": lam,
        "value": mean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        "num_seeds": len(values),
    }


def _default_first(value: float | None) -> float:
    return float("-inf") if value is None else value


def _text(value: float | None) -> str:
    return "default" if value is None else f"{value:g}"
