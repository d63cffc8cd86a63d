"""Table 8: sensitivity of SPP to kappa and lambda."""

import shlex
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import devices_text, images_text, size_text, spread_cell
from spp.report.missing import cost_of_alike, missing_todos, sweep_command, todo
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

GRID = "method.kappa=0.5,1,2 method.lam=0.2,0.4,0.8 seed=0,1,2"
"""Around the defaults of preset priced, as in conf/experiment/kappa_lambda.yaml."""
COMMAND = "spp run -m experiment=kappa_lambda"
LEGEND = (
    "Top-1 in percent after finetuning on {images} test images, mean ± standard deviation over {seeds}; one row for "
    "each kappa, one column for each lambda, budgets in achieved {kind}. `default` is the preset's own value, which "
    "follows from the number of steps. On {devices}."
)
UNKNOWN = "The paper's Table 8 is not known."


class _Place(NamedTuple):
    preset: str
    variant: str
    model: str
    data: str
    kind: str

    @property
    def label(self) -> str:
        return f"spp ({', '.join(part for part in (self.preset, self.variant) if part)})"


def tables(record: Record, published: Published) -> list[Table]:
    """A grid for each preset, model, data set and budget kind with several settings; without any, what there is."""
    places: dict[_Place, list[Row]] = {}
    for row in record.rows:
        if row["method"] == "spp":
            places.setdefault(_place(row), []).append(row)
    grids = {place: rows for place, rows in places.items() if len({setting(row) for row in rows}) > 1}
    if not grids:
        return [_no_grid(places)]
    names = {place: "table8" if len(grids) == 1 else file_stem("table8", *place) for place in grids}
    return [_grid(names[place], place, rows, record, published) for place, rows in grids.items()]


def setting(row: Row) -> tuple[float | None, float | None]:
    """kappa and lambda of a member; None is the preset's own."""
    return row["method_config"].get("kappa"), row["method_config"].get("lam")


def grid_command(row: Row) -> str:
    """What runs the grid with the settings of a member of preset priced."""
    return sweep_command(row["command"], "spp", shlex.split(GRID))


def _place(row: Row) -> _Place:
    """Where a member belongs: what is the same all over one grid."""
    others = [word for word in row["variant"].split() if not word.startswith(("method.kappa=", "method.lam="))]
    return _Place(row["preset"], " ".join(others), row["model"], row["data"], row["budget_kind"])


def _grid(name: str, place: _Place, rows: Sequence[Row], record: Record, published: Published) -> Table:
    kappas, lams = (sorted({setting(row)[axis] for row in rows}, key=_order) for axis in (0, 1))
    columns = (Column("budget"), Column("kappa"), *(Column(f"lambda {_text(lam)}") for lam in lams))
    members: dict[tuple[float, float | None, float | None], list[Row]] = {}
    for row in rows:
        members.setdefault((row["budget_asked"], *setting(row)), []).append(row)
    cells = []
    for budget in sorted({row["budget_asked"] for row in rows}, reverse=True):
        for kappa in kappas:
            here = [members.get((budget, kappa, lam), []) for lam in lams]
            line = [spread_cell([row["top1"] for row in found]) if found else Cell("not run") for found in here]
            cells.append((Cell(size_text(budget), budget), Cell(_text(kappa), kappa), *line))
    data = tuple(_tidy(place, *key, found) for key, found in members.items())
    wanted = [m for m in record.missing if (m.preset, m.model, m.data, m.budget_kind) == (place[0], *place[2:])]
    title = f"Table 8: kappa and lambda, {place.label}, {place.model} on {place.data}"
    legend = (_legend(rows), UNKNOWN)
    return Table(name, title, columns, tuple(cells), legend, missing_todos(record, wanted, published), data)


def _no_grid(places: Mapping[_Place, Sequence[Row]]) -> Table:
    """One line for each place, which has one setting, and how to run a grid."""
    titles = ("method", "model", "data")
    columns = (*(Column(title, is_number=False) for title in titles), Column("kappa"), Column("lambda"), Column("grid"))
    lines, open_ = [], []
    for place, rows in places.items():
        values = (Cell(_text(value), value) for value in setting(rows[0]))
        lines.append((Cell(place.label), Cell(place.model), Cell(place.data), *values, Cell("not run")))
        if place.preset == "priced" and not place.variant:
            what = f"spp (priced), {place.model} on {place.data}, 9 settings with 3 seeds each"
            open_.append(todo(what, grid_command(rows[0]), f"each, with one member: {cost_of_alike(rows)}"))
    if not open_:
        cost = "no GPU-hours: minutes per setting and seed on a CPU"
        open_.append(todo("spp (priced), vit_micro on digits, 9 settings, 3 seeds", COMMAND, cost))
    lines = lines or [(*[Cell()] * 5, Cell("not run"))]
    return Table("table8", "Table 8: kappa and lambda", columns, tuple(lines), (UNKNOWN,), tuple(open_))


def _legend(rows: Sequence[Row]) -> str:
    num_seeds = len({row["seed"] for row in rows})
    return LEGEND.format(
        images=images_text(rows),
        seeds=f"{num_seeds} seeds" if num_seeds > 1 else "one seed",
        kind=rows[0]["budget_kind"],
        devices=devices_text(rows),
    )


def _tidy(
    place: _Place, budget: float, kappa: float | None, lam: float | None, rows: Sequence[Row]
) -> Mapping[str, Any]:
    accuracies = [row["top1"] for row in rows]
    return {
        **place._asdict(),
        "budget_asked": budget,
        "kappa": kappa,
        "lam": lam,
        "top1": mean(accuracies),
        "top1_deviation": stdev(accuracies) if len(accuracies) > 1 else None,
        "num_seeds": len(accuracies),
    }


def _order(value: float | None) -> float:
    """The preset's own value comes first."""
    return float("-inf") if value is None else value


def _text(value: float | None) -> str:
    return "default" if value is None else f"{value:g}"
