"""Table 8: sensitivity of SPP to kappa and lambda."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from spp.record.metrics import MetricInfo, counts_text, headline, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import Workload, devices_text, metric_cell, metric_columns, size_text
from spp.report.missing import cost_of_alike, missing_todos, sweep_command, todo
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

GRID = "method.kappa=0.5,1,2 method.lam=0.2,0.4,0.8 seed=0,1,2"
"""Around the defaults of preset priced, as in conf/experiment/kappa_lambda.yaml."""
COMMAND = "spp run -m experiment=kappa_lambda"
LEGEND = (
    "{metric} after finetuning on {counts} test {samples}, mean ± standard deviation over {seeds}; one row for "
    "each kappa, one column for each lambda, budgets in achieved {kind}. `default` is the preset's own value, which "
    "follows from the number of steps. On {devices}."
)
UNKNOWN = "The paper's Table 8 is not known."


class Grid(NamedTuple):
    """What is the same all over one grid."""

    preset: str | None
    variant: str
    task: str
    model: str
    data: str
    budget_kind: str

    @property
    def label(self) -> str:
        """For people: spp (priced)."""
        return f"spp ({', '.join(part for part in (self.preset, self.variant) if part)})"


def grids_of(rows: Iterable[Row]) -> dict[Grid, list[Row]]:
    """The members of SPP by what is the same all over their grid."""
    found: dict[Grid, list[Row]] = {}
    for row in rows:
        if row["method"] == "spp":
            words = [word for word in row["variant"].split() if not word.startswith(("method.kappa=", "method.lam="))]
            grid = Grid(row["preset"], " ".join(words), *Workload.of(row), row["budget_kind"])
            found.setdefault(grid, []).append(row)
    return found


def has_settings(rows: Iterable[Row]) -> bool:
    """Whether members have several settings, so that they make up a grid."""
    return len({setting(row) for row in rows}) > 1


def setting(row: Row) -> tuple[float | None, float | None]:
    """kappa and lambda of a member; None is the preset's own."""
    return row["method_config"].get("kappa"), row["method_config"].get("lam")


def setting_text(value: float | None) -> str:
    """kappa or lambda as text."""
    return "default" if value is None else f"{value:g}"


def axes_of(rows: Sequence[Row]) -> tuple[list[float | None], list[float | None]]:
    """All kappas and all lambdas, ascending, the preset's own value first."""
    kappas, lams = zip(*map(setting, rows), strict=True)
    return sorted(set(kappas), key=_default_first), sorted(set(lams), key=_default_first)


def _default_first(value: float | None) -> float:
    return float("-inf") if value is None else value


def metric_words(metric: MetricInfo) -> str:
    """The metric for a legend; numbers in cells stand there without their unit."""
    return f"{metric.heading} in percent{metric.direction}" if metric.unit == "%" else metric.description


def grid_names(grids: Mapping[Grid, Sequence[Row]]) -> dict[Grid, str]:
    """Stems of files by grid; a task is named only where there are several."""
    has_tasks = len({grid.task for grid in grids}) > 1
    return {
        grid: file_stem("table8", *(grid if has_tasks else grid._replace(task=""))) if len(grids) > 1 else "table8"
        for grid in grids
    }


def tables(record: Record, published: Published) -> list[Table]:
    """A grid for each preset, workload and budget kind with several settings; without any, what there is."""
    found = grids_of(record.rows)
    grids = {grid: rows for grid, rows in found.items() if has_settings(rows)}
    if not grids:
        return [_no_grid(found)]
    names = grid_names(grids)
    return [_grid(names[grid], grid, rows, record, published) for grid, rows in grids.items()]


def grid_command(row: Row) -> str:
    """What runs the grid with the settings of a member of preset priced."""
    return sweep_command(row["command"], "spp", shlex.split(GRID))


def _grid(name: str, grid: Grid, rows: Sequence[Row], record: Record, published: Published) -> Table:
    metric = headline(rows)
    kappas, lams = axes_of(rows)
    columns = (Column("budget"), Column("kappa"), *(Column(f"lambda {setting_text(lam)}") for lam in lams))
    members: dict[tuple[float, float | None, float | None], list[Row]] = {}
    for row in rows:
        members.setdefault((row["budget_asked"], *setting(row)), []).append(row)
    cells = []
    for budget in sorted({row["budget_asked"] for row in rows}, reverse=True):
        for kappa in kappas:
            here = [members.get((budget, kappa, lam), []) for lam in lams]
            line = [metric_cell(found, metric) if found else Cell("not run") for found in here]
            cells.append((Cell(size_text(budget), budget), Cell(setting_text(kappa), kappa), *line))
    data = tuple(_tidy(grid, *key, found, metric) for key, found in members.items())
    wanted = [
        member
        for member in record.missing
        if (member.preset, *Workload.of_source(member), member.budget_kind) == (grid.preset, *grid[2:])
    ]
    title = f"Table 8: kappa and lambda, {grid.label}, {grid.model} on {grid.data}"
    legend = (_legend(rows, metric), UNKNOWN)
    return Table(name, title, columns, tuple(cells), legend, missing_todos(record, wanted, published), data)


def _no_grid(grids: Mapping[Grid, Sequence[Row]]) -> Table:
    """One line for each place, which has one setting, and how to run a grid."""
    titles = ("method", "model", "data")
    columns = (*(Column(title, is_number=False) for title in titles), Column("kappa"), Column("lambda"), Column("grid"))
    lines, open_ = [], []
    for grid, rows in grids.items():
        values = (Cell(setting_text(value), value) for value in setting(rows[0]))
        lines.append((Cell(grid.label), Cell(grid.model), Cell(grid.data), *values, Cell("not run")))
        if grid.preset == "priced" and not grid.variant:
            what = f"spp (priced), {grid.model} on {grid.data}, 9 settings with 3 seeds each"
            open_.append(todo(what, grid_command(rows[0]), f"each, with one member: {cost_of_alike(rows)}"))
    if not open_:
        cost = "no GPU-hours: minutes per setting and seed on a CPU"
        open_.append(todo("spp (priced), vit_micro on digits, 9 settings, 3 seeds", COMMAND, cost))
    lines = lines or [(*[Cell()] * 5, Cell("not run"))]
    return Table("table8", "Table 8: kappa and lambda", columns, tuple(lines), (UNKNOWN,), tuple(open_))


def _legend(rows: Sequence[Row], metric: MetricInfo) -> str:
    num_seeds = len({row["seed"] for row in rows})
    return LEGEND.format(
        metric=metric_words(metric),
        counts=counts_text(rows, metric.name),
        samples=metric.of,
        seeds=f"{num_seeds} seeds" if num_seeds > 1 else "one seed",
        kind=rows[0]["budget_kind"],
        devices=devices_text(rows),
    )


def _tidy(
    grid: Grid, budget: float, kappa: float | None, lam: float | None, rows: Sequence[Row], metric: MetricInfo
) -> Mapping[str, Any]:
    return {
        **grid._asdict(),
        "budget_asked": budget,
        "kappa": kappa,
        "lam": lam,
        **metric_columns(values_of(rows, metric.name), metric),
        "num_seeds": len(rows),
    }
