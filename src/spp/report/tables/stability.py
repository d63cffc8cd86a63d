"""How stable a search is across seeds: order of entry, supports at equal budget, and the accuracies that follow."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from spp.record.metrics import MetricInfo, headline, values_of
from spp.record.record import PathSource, Record
from spp.record.rows import Row
from spp.report.consistency import chance_overlap, kendall_tau, pairs_of_seeds, support_overlap
from spp.report.drawing import file_stem
from spp.report.groups import Combination, group_rows, spread_cell
from spp.report.missing import todo
from spp.report.path_statistics import SHARES, PathStatistics, path_statistics
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

MAX_SEEDS = 10
LEGEND = (
    "Stays: of the units that are ever in the support of Gamma, the share that, once in, never leaves it. Kendall tau: "
    "tau-b between the times of entry of two seeds; 1 is the same order, 0 no more alike than chance; units that never "
    "entered are tied. Overlap: intersection over union of the best units of two seeds at that share of the FLOPs of "
    "all units; by chance: what units drawn at random have. Mean ± standard deviation over seeds, or over all pairs of "
    f"them, up to {MAX_SEEDS} seeds.",
    "The dense networks differ between the seeds where each trains its own; what stays the same is then all the more "
    "the model's and the data's. {deviation}The paper's numbers are not known.",
)
DEVIATION = "{metric} deviation: standard deviation over seeds{unit}, mean over the budgets. "
COMMAND = "spp run -m experiment=stability"


def tables(record: Record, published: Published) -> list[Table]:
    """One row for each combination whose paths are there; a table for each task."""
    combinations: dict[Combination, dict[int, PathSource]] = {}
    for path in record.paths:
        combinations.setdefault(Combination.of_source(path), {}).setdefault(path.seed, path)
    tasks = list(dict.fromkeys(combination.task for combination in combinations)) or [""]
    made = []
    for task in tasks:
        words = (task,) if len(tasks) > 1 else ()
        title = ", ".join(["Stability across seeds", *words])
        here = {combination: found for combination, found in combinations.items() if combination.task == task}
        rows = [row for row in record.rows if row["task"] == task]
        made.append(_table(file_stem("stability", *words), title, here, rows))
    return made


def _table(
    name: str, title: str, combinations: Mapping[Combination, Mapping[int, PathSource]], rows: Sequence[Row]
) -> Table:
    metric = headline(rows) if rows else None
    lines, data = [], []
    for combination, by_seed in combinations.items():
        measured = measure({seed: path_statistics(source.artifacts) for seed, source in by_seed.items()})
        deviation = _mean_deviation(combination, rows, metric) if metric else None
        lines.append(_cells(combination, len(by_seed), measured, deviation, metric))
        data.append(_tidy(combination, len(by_seed), measured, deviation, metric))
    open_ = []
    if not any(len(by_seed) > 1 for by_seed in combinations.values()):
        cost = "no GPU-hours: minutes per seed on a CPU"
        open_.append(todo("spp (priced), vit_micro on digits, five seeds", COMMAND, cost))
    about = DEVIATION.format(metric=metric.heading, unit=metric.in_change_unit) if metric else ""
    legend = (LEGEND[0], LEGEND[1].format(deviation=about))
    return Table(name, title, _columns(metric), tuple(lines), legend, tuple(open_), tuple(data))


def _columns(metric: MetricInfo | None) -> tuple[Column, ...]:
    return (
        Column("method", is_number=False),
        Column("model", is_number=False),
        Column("data", is_number=False),
        Column("seeds"),
        Column("stays (%)"),
        Column("Kendall tau"),
        *(Column(f"overlap at {100 * share:g} %") for share in SHARES),
        *(Column(f"by chance at {100 * share:g} %") for share in SHARES),
        *([Column(f"{metric.column} deviation")] if metric else []),
    )


def measure(statistics: Mapping[int, PathStatistics]) -> dict[str, list[float]]:
    """By name of a measure its values: "stays" for each seed, the others for each pair of seeds; NaN left out."""
    values: dict[str, list[float]] = {"stays": [100 * one.stays for one in statistics.values()], "tau": []}
    for share in SHARES:
        values[f"overlap_{share:g}"], values[f"chance_{share:g}"] = [], []
    for first, second in pairs_of_seeds(sorted(statistics)[:MAX_SEEDS]):
        a, b = statistics[first], statistics[second]
        if len(a.times) != len(b.times):
            continue
        values["tau"].append(kendall_tau(a.times, b.times))
        for share in SHARES:
            supports = a.supports[share], b.supports[share]
            values[f"overlap_{share:g}"].append(support_overlap(*supports))
            values[f"chance_{share:g}"].append(chance_overlap(*supports))
    return {name: [value for value in found if np.isfinite(value)] for name, found in values.items()}


def _mean_deviation(combination: Combination, rows: Sequence[Row], metric: MetricInfo) -> float | None:
    """Standard deviation of the metric over seeds, mean over the budgets that have several."""
    groups = group_rows(row for row in rows if Combination.of(row) == combination)
    values = [values_of(members, metric.name) for members in groups.values()]
    deviations = [stdev(found) for found in values if len(found) > 1]
    return mean(deviations) if deviations else None


def _cells(
    combination: Combination,
    num_seeds: int,
    measured: Mapping[str, Sequence[float]],
    deviation: float | None,
    metric: MetricInfo | None,
) -> tuple[Cell, ...]:
    overlaps = (
        spread_cell(measured[f"{what}_{share:g}"], digits=2) for what in ("overlap", "chance") for share in SHARES
    )
    return (
        Cell(combination.label),
        Cell(combination.model),
        Cell(combination.data),
        Cell(str(num_seeds), num_seeds),
        spread_cell(measured["stays"]),
        spread_cell(measured["tau"], digits=2),
        *overlaps,
        *([_deviation_cell(deviation, metric)] if metric else []),
    )


def _deviation_cell(deviation: float | None, metric: MetricInfo) -> Cell:
    if deviation is None:
        return Cell()
    digits = 2 if metric.unit == "%" else metric.digits(deviation)
    return Cell(f"{deviation:.{digits}f}", deviation)


def _tidy(
    combination: Combination,
    num_seeds: int,
    measured: Mapping[str, Sequence[float]],
    deviation: float | None,
    metric: MetricInfo | None,
) -> Mapping[str, Any]:
    means = {name: mean(values) if values else None for name, values in measured.items()}
    return {
        **combination._asdict(),
        "num_seeds": num_seeds,
        **means,
        "metric": metric.name if metric else None,
        "unit": metric.unit if metric else None,
        "deviation": deviation,
    }
