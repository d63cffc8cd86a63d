"""What a search costs: epochs as published, and ours in seconds and GPU-seconds; one search against one per budget."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.groups import Combination, by_combination, by_task, devices_text, duration, num_searches, search_rows
from spp.report.missing import missing_todos
from spp.report.published import Published, PublishedSearch
from spp.report.table import Cell, Column, Table, insert_column

COLUMNS = (
    Column("method", is_number=False),
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("source", is_number=False),
    Column("search (epochs)", is_number=False),
    Column("finetune (epochs)", is_number=False),
    Column("budgets"),
    Column("seeds"),
    Column("searches"),
    Column("all searches"),
    Column("per member"),
    Column("per seed"),
    Column("one search per budget, per seed"),
    Column("finetune per member"),
    Column("device", is_number=False),
)
LEGEND = (
    "Epochs of search and walk together, and of the finetuning. Published epochs are those of DeiT on ImageNet-1k, for "
    "one search; how long they took is not known.",
    "Costs are those of searches with their walks, in GPU-hours (GPU-s: GPU-seconds), or in seconds where no GPU was "
    "used: of all searches, shared among all members, and of one seed. `One search per budget` is what the budgets of "
    "one seed take, or would take, with a search for each: a method that searches once for all takes its one search "
    "instead. The dense network's training is in none of them.",
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table: the published epochs, then ours."""
    rows = [_published_cells(search) for search in published.searches]
    data: list[Mapping[str, Any]] = [_published_tidy(search) for search in published.searches]
    tasks = [Cell()] * len(rows)
    for combination, members in by_combination(record.rows).items():
        costs = costs_of(members)
        rows.append(_cells(combination, members, costs))
        tasks.append(Cell(combination.task))
        data.append({**combination._asdict(), "source": "ours", **costs, "device": devices_text(members)})
    todo = missing_todos(record, record.missing, published)
    table = Table("cost", "What a search costs", COLUMNS, tuple(rows), LEGEND, todo, tuple(data))
    has_tasks = len(by_task(record.rows)) > 1
    return [insert_column(table, 3, Column("task", is_number=False), tasks) if has_tasks else table]


def costs_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Costs of the members of one combination: epochs, numbers of things, seconds and GPU-seconds."""
    searches = search_rows(rows)
    num_seeds, num_budgets = len({row["seed"] for row in rows}), len({_budget(row) for row in rows})
    costs: dict[str, Any] = {
        "epochs_search": _distinct(row["epochs_search"] for row in rows),
        "epochs_finetune": _distinct(row["epochs_finetune"] for row in rows),
        "num_budgets": num_budgets,
        "num_seeds": num_seeds,
        "num_searches": num_searches(rows),
        "num_members": len(rows),
    }
    for unit in ("seconds", "gpu_seconds"):
        total = sum(row[f"search_{unit}"] for row in searches)
        each = _search_per_budget(rows, f"search_{unit}")
        costs |= {
            f"search_{unit}": total,
            f"search_{unit}_per_member": total / len(rows),
            f"search_{unit}_per_seed": total / num_seeds,
            f"search_{unit}_one_per_budget": each / num_seeds,
            f"finetune_{unit}_per_member": mean(row[f"finetune_{unit}"] for row in rows),
        }
    return costs


def _budget(row: Row) -> tuple[str, float]:
    return row["budget_kind"], row["budget_asked"]


def _search_per_budget(rows: Sequence[Row], column: str) -> float:
    """What the searches of all seeds would take if every member had one for itself."""
    return float(sum(row[column] for row in rows))


def _distinct(values: Any) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))


def _cells(combination: Combination, rows: Sequence[Row], costs: Mapping[str, Any]) -> tuple[Cell, ...]:
    counts = (costs[f"num_{name}"] for name in ("budgets", "seeds", "searches"))
    return (
        Cell(combination.label),
        Cell(combination.model),
        Cell(combination.data),
        Cell("ours"),
        Cell(costs["epochs_search"]),
        Cell(costs["epochs_finetune"]),
        *(Cell(str(count), count) for count in counts),
        _cost(costs, "search", ""),
        _cost(costs, "search", "_per_member"),
        _cost(costs, "search", "_per_seed"),
        _cost(costs, "search", "_one_per_budget"),
        _cost(costs, "finetune", "_per_member"),
        Cell(devices_text(rows)),
    )


def _cost(costs: Mapping[str, Any], what: str, how: str) -> Cell:
    seconds, gpu_seconds = costs[f"{what}_seconds{how}"], costs[f"{what}_gpu_seconds{how}"]
    return Cell(duration(seconds, gpu_seconds / 3600), gpu_seconds or seconds, hint=f"{seconds:.1f} s")


def _published_cells(search: PublishedSearch) -> tuple[Cell, ...]:
    return (
        Cell(search.method, hint=search.note),
        Cell("DeiT"),
        Cell("imagenet"),
        Cell(search.source),
        Cell(str(search.search_epochs), search.search_epochs),
        Cell(str(search.finetune_epochs), search.finetune_epochs),
        *((Cell(),) * (len(COLUMNS) - 6)),
    )


def _published_tidy(search: PublishedSearch) -> Mapping[str, Any]:
    return {
        "method": search.method,
        "source": search.source,
        "epochs_search": search.search_epochs,
        "epochs_finetune": search.finetune_epochs,
    }
