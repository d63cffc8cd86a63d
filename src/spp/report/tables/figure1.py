"""Figure 1 as a table: a metric over FLOPs with what the searches cost."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from spp.plan.numbers import FLOPS_SCALES
from spp.record.metrics import MetricInfo, counts_text, headline, values_of
from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import file_stem
from spp.report.groups import (
    Group,
    by_combination,
    by_task,
    by_workload,
    dense_cell,
    dense_groups,
    devices_text,
    duration,
    flops_unit_of,
    group_rows,
    metric_cell,
    metric_columns,
    num_searches,
    search_rows,
    tasks_to_name,
)
from spp.report.missing import missing_todos, todo
from spp.report.published import HEADLINE, TASK, Published, quality_name
from spp.report.table import Cell, Column, Table

LEGEND = (
    "{quality} over size, and what all searches with their walks of a method took for one seed: a method that searches "
    "once has one search for all its budgets, others one for each. {metric} on {counts} test {samples} after "
    "finetuning, mean ± standard deviation over seeds; FLOPs are multiply-adds for one {sample}. The paper's figure "
    "compares SPP with Lasso; its numbers are not known."
)


def tables(record: Record, published: Published) -> list[Table]:
    """Summary of Figure 1: one line for each method and budget; a table for each task."""
    rows_of_task, task_words = by_task(record.rows) or {TASK: []}, tasks_to_name(record.rows)
    made = []
    for task, rows in rows_of_task.items():
        words = task_words.get(task, ())
        name = file_stem("figure1-summary", *words)
        title = ", ".join(["Figure 1: accuracy, size and search cost", *words])
        made.append(_table(name, title, task, rows, record, published))
    return made


def _table(name: str, title: str, task: str, rows: Sequence[Row], record: Record, published: Published) -> Table:
    metric = headline(rows) if rows else HEADLINE
    of_combination = by_combination(rows)
    groups = group_rows(rows)
    lines = [_tidy(group, members, of_combination[group.combination], metric) for group, members in groups.items()]
    unit = flops_unit_of(rows)
    cells = _dense_cells(rows, metric, unit)
    cells += [_cells(group, groups[group], line, metric, unit) for group, line in zip(groups, lines, strict=True)]
    open_ = list(missing_todos(record, [member for member in record.missing if member.task == task], published))
    absent = [method for method in ("spp", "lasso") if method not in {row["method"] for row in rows}]
    for method in absent if task == TASK else ():
        cost = "no GPU-hours: minutes on a CPU"
        open_.append(todo(f"{method}, vit_micro on digits", f"spp run method={method}", cost))
    cells = cells or [(Cell("spp, lasso"), *[Cell()] * 5, Cell("not run"), *[Cell()] * 4)]
    legend = LEGEND.format(
        quality=quality_name(metric),
        metric=metric.description,
        counts=counts_text(rows, metric.name) or "the",
        samples=metric.of,
        sample=metric.sample,
    )
    return Table(name, title, _columns(metric, unit), tuple(cells), (legend,), tuple(open_), tuple(lines))


def _columns(metric: MetricInfo, unit: str) -> tuple[Column, ...]:
    return (
        Column("method", is_number=False),
        Column("model", is_number=False),
        Column("data", is_number=False),
        Column("budget", is_number=False),
        Column(f"FLOPs ({unit})"),
        Column("of dense (%)"),
        Column(metric.title),
        Column("seeds"),
        Column("searches per seed"),
        Column("search cost, all budgets, per seed"),
        Column("device", is_number=False),
    )


def _dense_cells(rows: Sequence[Row], metric: MetricInfo, unit: str) -> list[tuple[Cell, ...]]:
    lines = []
    for workload, members in by_workload(rows).items():
        for name, here in dense_groups(members).items():
            macs = here[0]["dense_macs"] / FLOPS_SCALES[unit]
            size = (Cell(f"{macs:.4g}", macs), Cell("100.0", 100.0))
            where = (Cell(workload.model), Cell(workload.data))
            lines.append((Cell(name), *where, Cell(), *size, dense_cell(here, metric), *[Cell()] * 4))
    return lines


def _cells(
    group: Group, rows: Sequence[Row], line: Mapping[str, Any], metric: MetricInfo, unit: str
) -> tuple[Cell, ...]:
    macs = line["macs"] / FLOPS_SCALES[unit]
    seconds, gpu_seconds = line["search_seconds_per_seed"], line["search_gpu_seconds_per_seed"]
    share, num_seeds = 100 * mean(row["macs"] / row["dense_macs"] for row in rows), len({row["seed"] for row in rows})
    return (
        Cell(group.combination.label),
        Cell(group.combination.model),
        Cell(group.combination.data),
        Cell(group.budget),
        Cell(f"{macs:.4g}", macs),
        Cell(f"{share:.1f}", share),
        metric_cell(rows, metric),
        Cell(str(num_seeds), num_seeds),
        Cell(f"{line['num_searches_per_seed']:g}", line["num_searches_per_seed"]),
        Cell(duration(seconds, gpu_seconds / 3600), gpu_seconds or seconds),
        Cell(devices_text(rows)),
    )


def _tidy(group: Group, rows: Sequence[Row], all_budgets: Sequence[Row], metric: MetricInfo) -> Mapping[str, Any]:
    searches, num_seeds = search_rows(all_budgets), len({row["seed"] for row in all_budgets})
    return {
        **group.combination._asdict(),
        "budget_kind": group.budget_kind,
        "budget_asked": group.budget_asked,
        "macs": mean(row["macs"] for row in rows),
        "params": mean(row["params"] for row in rows),
        **metric_columns(values_of(rows, metric.name), metric),
        "num_seeds": len({row["seed"] for row in rows}),
        "num_searches_per_seed": num_searches(searches) / num_seeds,
        "search_seconds_per_seed": sum(row["search_seconds"] for row in searches) / num_seeds,
        "search_gpu_seconds_per_seed": sum(row["search_gpu_seconds"] for row in searches) / num_seeds,
    }
