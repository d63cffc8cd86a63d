"""Table 6: epochs, batch size and learning rate, the paper's beside those of our runs."""

from collections.abc import Iterable, Mapping
from typing import Any

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.groups import Workload, devices_text
from spp.report.missing import FORMULA, recipe_todo
from spp.report.published import Published, PublishedRecipe
from spp.report.table import Cell, Column, Table, insert_column

COLUMNS = (
    Column("model", is_number=False),
    Column("data", is_number=False),
    Column("recipe", is_number=False),
    Column("update (epochs)"),
    Column("prune (epochs)"),
    Column("finetune (epochs)"),
    Column("batch size"),
    Column("learning rate"),
    Column("members"),
    Column("device", is_number=False),
)
FIELDS = ("epochs_update", "epochs_prune", "epochs_finetune", "batch_size", "lr")
LEGEND = (
    "SPP's recipes: epochs of the three stages, images per step over all devices, peak learning rate of the cosine; of "
    "ours, batch size and learning rate are those of the finetuning. The paper ran on {hardware}.",
    "a: differs from the paper's.",
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table: the paper's rows, each with what we ran below it, then what else we ran."""
    ours = _recipes(row for row in record.rows if row["method"] == "spp")
    rows, data, todo, tasks = [], [], [], list[Cell]()
    for recipe in published.recipes:
        workload = (recipe.task, recipe.model, recipe.data)
        rows.append(_published_cells(recipe))
        data.append(_tidy(recipe.model, recipe.data, "paper", _values(recipe)))
        found = {key: members for key, members in ours.items() if key[:3] == workload}
        rows += [_our_cells(key, members, recipe) for key, members in found.items()]
        line = None if found else recipe_todo(recipe, published)
        if line or not found:
            rows.append(_empty(recipe, "not run" if line else "cannot be run yet"))
        todo += [line] if line else []
        tasks += [Cell(recipe.task)] * (len(rows) - len(tasks))
    paper = {(recipe.task, recipe.model, recipe.data) for recipe in published.recipes}
    others = {key: members for key, members in ours.items() if key[:3] not in paper}
    tasks += [Cell(key[0]) for key in others]
    rows += [_our_cells(key, members, None) for key, members in others.items()]
    data += [{**_tidy(key[1], key[2], "ours", key[3:]), "task": key[0]} for key in ours]
    has_marks = any(cell.marks for row in rows for cell in row)
    legend = (LEGEND[0].format(hardware=published.hardware), *([FORMULA] if todo else []))
    legend += LEGEND[1:] if has_marks else ()
    title = "Table 6: epochs, batch size and learning rate of SPP"
    table = Table("table6", title, COLUMNS, tuple(rows), legend, tuple(todo), tuple(data))
    has_tasks = len({key[0] for key in ours}) > 1
    return [insert_column(table, 2, Column("task", is_number=False), tasks) if has_tasks else table]


def _recipes(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((*Workload.of(row), *(row[field] for field in FIELDS)), []).append(row)
    return found


def _values(recipe: PublishedRecipe) -> tuple[float, ...]:
    return (recipe.update_epochs, recipe.prune_epochs, recipe.finetune_epochs, recipe.batch_size, recipe.lr)


def _number(value: float | None, marks: str = "") -> Cell:
    return Cell() if value is None else Cell(f"{value:g}", value, marks)


def _published_cells(recipe: PublishedRecipe) -> tuple[Cell, ...]:
    numbers = (_number(value) for value in _values(recipe))
    return (Cell(recipe.model), Cell(recipe.data), Cell("paper", hint=recipe.source), *numbers, Cell(), Cell())


def _our_cells(key: tuple[Any, ...], members: list[Row], recipe: PublishedRecipe | None) -> tuple[Cell, ...]:
    values = key[3:]
    theirs = _values(recipe) if recipe else values
    numbers = (_number(value, "a" if value != other else "") for value, other in zip(values, theirs, strict=True))
    return (
        Cell(key[1]),
        Cell(key[2]),
        Cell("ours"),
        *numbers,
        Cell(str(len(members)), len(members)),
        Cell(devices_text(members)),
    )


def _empty(recipe: PublishedRecipe, why: str) -> tuple[Cell, ...]:
    blank = (Cell(),) * (len(COLUMNS) - 3)
    return (Cell(recipe.model), Cell(recipe.data), Cell(f"ours: {why}"), *blank)


def _tidy(model: str, data: str, recipe: str, values: tuple[Any, ...]) -> Mapping[str, Any]:
    return {"model": model, "data": data, "recipe": recipe, **dict(zip(FIELDS, values, strict=True))}
