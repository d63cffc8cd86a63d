"""The figures as tables: accuracy over FLOPs with the search's cost, and what a solution path looks like."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from spp.record.record import PathSource, Record
from spp.record.rows import Row
from spp.report.groups import (
    Group,
    Setup,
    dense_groups,
    devices_text,
    duration,
    group_rows,
    images_text,
    num_searches,
    search_rows,
    spread_cell,
)
from spp.report.missing import missing_todos, todo
from spp.report.path_data import FAMILIES
from spp.report.path_facts import PathFacts, path_facts
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

FIGURE1_COLUMNS = (
    Column("method", is_number=False),
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("budget", is_number=False),
    Column("FLOPs (G)"),
    Column("of dense (%)"),
    Column("top-1 (%)"),
    Column("seeds"),
    Column("searches per seed"),
    Column("search cost, all budgets, per seed"),
    Column("device", is_number=False),
)
FIGURE1_LEGEND = (
    "Accuracy over size, and what all searches with their walks of a method took for one seed: a method that searches "
    "once has one search for all its budgets, others one for each. Top-1 on {images} test images after finetuning, "
    "mean ± standard deviation over seeds; FLOPs are multiply-adds for one image. The paper's figure compares SPP with "
    "Lasso; its numbers are not known."
)
FIGURE2_COLUMNS = (
    Column("method", is_number=False),
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("seed"),
    Column("steps"),
    Column("units"),
    Column("entered (%)"),
    *(Column(f"{name} entered (%)") for name in FAMILIES.values()),
    *(Column(f"{name} median entry (step)") for name in FAMILIES.values()),
    Column("stays (%)"),
)
FIGURE2_LEGEND = (
    "Each path: how many of the units entered the support of Gamma during the search, in all and of each family; the "
    "step at which half of a family's units had entered, empty where fewer did; and, of those that entered, the share "
    "that never left again. The paper's figure shows that units, once in, stay; its numbers are not known."
)


def figure1(record: Record, published: Published) -> list[Table]:
    """Summary of Figure 1: one line for each method and budget."""
    setups: dict[Setup, list[Row]] = {}
    groups = group_rows(record.rows)
    for group, members in groups.items():
        setups.setdefault(group.setup, []).extend(members)
    data = [_figure1_tidy(group, members, setups[group.setup]) for group, members in groups.items()]
    rows = _dense_cells(record.rows)
    rows += [_figure1_cells(group, members, setups[group.setup]) for group, members in groups.items()]
    open_ = list(missing_todos(record, record.missing, published))
    absent = [method for method in ("spp", "lasso") if method not in {row["method"] for row in record.rows}]
    for method in absent:
        cost = "no GPU-hours: minutes on a CPU"
        open_.append(todo(f"{method}, vit_micro on digits", f"spp run method={method}", cost))
    rows = rows or [(Cell("spp, lasso"), *[Cell()] * 5, Cell("not run"), *[Cell()] * 4)]
    legend = FIGURE1_LEGEND.format(images=images_text(record.rows) or "the")
    title = "Figure 1: accuracy, size and search cost"
    return [Table("figure1-summary", title, FIGURE1_COLUMNS, tuple(rows), (legend,), tuple(open_), tuple(data))]


def figure2(record: Record, published: Published) -> list[Table]:
    """Summary of Figure 2: one line for each path.

    Raises:
        ValueError: if there is no finished path.
    """
    if not record.paths:
        raise ValueError("figure2: there is no finished path; allowed: a sweep whose update is done; see spp status")
    data = tuple(_figure2_tidy(source, path_facts(source.artifacts)) for source in record.paths)
    rows = tuple(_figure2_cells(line) for line in data)
    return [Table("figure2-summary", "Figure 2: solution paths", FIGURE2_COLUMNS, rows, (FIGURE2_LEGEND,), (), data)]


def _dense_cells(rows: Sequence[Row]) -> list[tuple[Cell, ...]]:
    lines = []
    for model, data in dict.fromkeys((row["model"], row["data"]) for row in rows):
        dense = dense_groups(row for row in rows if (row["model"], row["data"]) == (model, data))
        for name, here in dense.items():
            macs = here[0]["dense_macs"] / 1e9
            size = (Cell(f"{macs:.4g}", macs), Cell("100.0", 100.0))
            accuracy = spread_cell([row["dense_top1"] for row in here])
            lines.append((Cell(name), Cell(model), Cell(data), Cell(), *size, accuracy, *[Cell()] * 4))
    return lines


def _figure1_cells(group: Group, rows: Sequence[Row], all_budgets: Sequence[Row]) -> tuple[Cell, ...]:
    line = _figure1_tidy(group, rows, all_budgets)
    seconds, gpu_seconds = line["search_seconds_per_seed"], line["search_gpu_seconds_per_seed"]
    share, num_seeds = 100 * mean(row["macs"] / row["dense_macs"] for row in rows), len({row["seed"] for row in rows})
    return (
        Cell(group.setup.label),
        Cell(group.setup.model),
        Cell(group.setup.data),
        Cell(group.budget),
        Cell(f"{line['macs'] / 1e9:.4g}", line["macs"] / 1e9),
        Cell(f"{share:.1f}", share),
        spread_cell([row["top1"] for row in rows]),
        Cell(str(num_seeds), num_seeds),
        Cell(f"{line['num_searches_per_seed']:g}", line["num_searches_per_seed"]),
        Cell(duration(seconds, gpu_seconds / 3600), gpu_seconds or seconds),
        Cell(devices_text(rows)),
    )


def _figure1_tidy(group: Group, rows: Sequence[Row], all_budgets: Sequence[Row]) -> Mapping[str, Any]:
    accuracies = [row["top1"] for row in rows]
    searches, num_seeds = search_rows(all_budgets), len({row["seed"] for row in all_budgets})
    return {
        **group.setup._asdict(),
        "budget_kind": group.budget_kind,
        "budget_asked": group.budget_asked,
        "macs": mean(row["macs"] for row in rows),
        "params": mean(row["params"] for row in rows),
        "top1": mean(accuracies),
        "top1_deviation": stdev(accuracies) if len(accuracies) > 1 else None,
        "num_seeds": len({row["seed"] for row in rows}),
        "num_searches_per_seed": num_searches(searches) / num_seeds,
        "search_seconds_per_seed": sum(row["search_seconds"] for row in searches) / num_seeds,
        "search_gpu_seconds_per_seed": sum(row["search_gpu_seconds"] for row in searches) / num_seeds,
    }


def _figure2_tidy(source: PathSource, facts: PathFacts) -> dict[str, Any]:
    line: dict[str, Any] = {
        **Setup(source.method, source.preset, source.variant, source.model, source.data)._asdict(),
        "seed": source.seed,
        "num_steps": facts.num_steps,
        "num_units": len(facts.times),
        "entered": 100 * float(np.isfinite(facts.times).mean()),
        "stays": 100 * facts.stays if np.isfinite(facts.stays) else None,
    }
    for kind in FAMILIES:
        times = facts.times[facts.kinds == kind]
        median = float(np.median(times)) if len(times) else float("inf")
        line[f"entered_{kind}"] = 100 * float(np.isfinite(times).mean()) if len(times) else None
        line[f"median_entry_{kind}"] = median if np.isfinite(median) else None
    return line


def _figure2_cells(line: Mapping[str, Any]) -> tuple[Cell, ...]:
    setup = Setup(*(line[name] for name in Setup._fields))
    return (
        Cell(setup.label),
        Cell(setup.model),
        Cell(setup.data),
        *(Cell(str(line[name]), line[name]) for name in ("seed", "num_steps", "num_units")),
        _number(line["entered"], 1),
        *(_number(line[f"entered_{kind}"], 1) for kind in FAMILIES),
        *(_number(line[f"median_entry_{kind}"], 0) for kind in FAMILIES),
        _number(line["stays"], 1),
    )


def _number(value: float | None, digits: int) -> Cell:
    return Cell() if value is None else Cell(f"{value:.{digits}f}", value)
