"""How stable a search is across seeds: order of entry, supports at equal budget, and the accuracies that follow."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from spp.record.record import PathSource, Record
from spp.report.consistency import chance_overlap, kendall_tau, pairs_of_seeds, support_overlap
from spp.report.groups import Setup, group_rows, spread_cell
from spp.report.missing import todo
from spp.report.path_facts import SHARES, PathFacts, path_facts
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

MAX_SEEDS = 10
COLUMNS = (
    Column("method", is_number=False),
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("seeds"),
    Column("stays (%)"),
    Column("Kendall tau"),
    *(Column(f"overlap at {100 * share:g} %") for share in SHARES),
    *(Column(f"by chance at {100 * share:g} %") for share in SHARES),
    Column("top-1 deviation"),
)
LEGEND = (
    "Stays: of the units that are ever in the support of Gamma, the share that, once in, never leaves it. Kendall tau: "
    "tau-b between the times of entry of two seeds; 1 is the same order, 0 no more alike than chance; units that never "
    "entered are tied. Overlap: intersection over union of the best units of two seeds at that share of the FLOPs of "
    "all units; by chance: what units drawn at random have. Mean ± standard deviation over seeds, or over all pairs of "
    f"them, up to {MAX_SEEDS} seeds.",
    "The dense networks differ between the seeds where each trains its own; what stays the same is then all the more "
    "the model's and the data's. Top-1 deviation: standard deviation over seeds in points, mean over the budgets. The "
    "paper's numbers are not known.",
)
COMMAND = "spp run -m experiment=stability"


def tables(record: Record, published: Published) -> list[Table]:
    """One row for each setup whose paths are there."""
    setups: dict[Setup, dict[int, PathSource]] = {}
    for path in record.paths:
        setup = Setup(path.method, path.preset, path.variant, path.model, path.data)
        setups.setdefault(setup, {}).setdefault(path.seed, path)
    rows, data = [], []
    for setup, by_seed in setups.items():
        measured = measure({seed: path_facts(source.artifacts) for seed, source in by_seed.items()})
        deviation = _accuracy_deviation(setup, record)
        rows.append(_cells(setup, len(by_seed), measured, deviation))
        data.append(_tidy(setup, len(by_seed), measured, deviation))
    open_ = []
    if not any(len(by_seed) > 1 for by_seed in setups.values()):
        cost = "no GPU-hours: minutes per seed on a CPU"
        open_.append(todo("spp (priced), vit_micro on digits, five seeds", COMMAND, cost))
    return [Table("stability", "Stability across seeds", COLUMNS, tuple(rows), LEGEND, tuple(open_), tuple(data))]


def measure(facts: Mapping[int, PathFacts]) -> dict[str, list[float]]:
    """By name of a measure its values: "stays" for each seed, the others for each pair of seeds; NaN left out."""
    values: dict[str, list[float]] = {"stays": [100 * one.stays for one in facts.values()], "tau": []}
    for share in SHARES:
        values[f"overlap_{share:g}"], values[f"chance_{share:g}"] = [], []
    for first, second in pairs_of_seeds(sorted(facts)[:MAX_SEEDS]):
        a, b = facts[first], facts[second]
        if len(a.times) != len(b.times):
            continue
        values["tau"].append(kendall_tau(a.times, b.times))
        for share in SHARES:
            supports = a.supports[share], b.supports[share]
            values[f"overlap_{share:g}"].append(support_overlap(*supports))
            values[f"chance_{share:g}"].append(chance_overlap(*supports))
    return {name: [value for value in found if np.isfinite(value)] for name, found in values.items()}


def _accuracy_deviation(setup: Setup, record: Record) -> float | None:
    groups = group_rows(row for row in record.rows if row["method"] == setup.method)
    deviations = [
        stdev(row["top1"] for row in rows) for group, rows in groups.items() if group.setup == setup and len(rows) > 1
    ]
    return mean(deviations) if deviations else None


def _cells(
    setup: Setup, num_seeds: int, measured: Mapping[str, Sequence[float]], deviation: float | None
) -> tuple[Cell, ...]:
    overlaps = (
        spread_cell(measured[f"{what}_{share:g}"], digits=2) for what in ("overlap", "chance") for share in SHARES
    )
    return (
        Cell(setup.label),
        Cell(setup.model),
        Cell(setup.data),
        Cell(str(num_seeds), num_seeds),
        spread_cell(measured["stays"]),
        spread_cell(measured["tau"], digits=2),
        *overlaps,
        Cell() if deviation is None else Cell(f"{deviation:.2f}", deviation),
    )


def _tidy(
    setup: Setup, num_seeds: int, measured: Mapping[str, Sequence[float]], deviation: float | None
) -> Mapping[str, Any]:
    means = {name: mean(values) if values else None for name, values in measured.items()}
    return {**setup._asdict(), "num_seeds": num_seeds, **means, "top1_deviation": deviation}
