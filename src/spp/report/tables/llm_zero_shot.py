"""Language models pruned in one shot: zero-shot tasks of lm-evaluation-harness, with the axes of the pruning."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from spp.record.rows import Row
from spp.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from spp.report.tables.llm import Axes

ZERO_SHOT, DENSE_ZERO_SHOT = "zero_shot", "dense_zero_shot"
AXES = ("model", "method", "pattern", "group", "permutation", "update", "allocation", "calibration")


def tables(groups: "Mapping[Axes, Sequence[Row]]") -> list[Table]:
    """One table of the members that were asked, and of their dense networks; none where none was."""
    asked = {axes: [row for row in rows if ZERO_SHOT in row] for axes, rows in groups.items()}
    asked = {axes: rows for axes, rows in asked.items() if rows}
    if not asked:
        return []
    measured = _measured(row for rows in asked.values() for row in rows)
    titles = [f"{task} {metric}" for task, metric in measured]
    heads = (*(Column(name, is_number=False) for name in AXES), *(Column(t) for t in titles), Column("mean acc"))
    lines, data = [], []
    dense: dict[tuple[str, str], Row] = {}
    for axes, rows in asked.items():
        dense.setdefault((axes.model, axes.dtype), rows[0])
    for (model, _), row in dense.items():
        lines.append(_line((model, "dense", *[""] * 6), [row], DENSE_ZERO_SHOT, measured))
    for axes, rows in asked.items():
        method = f"{axes.method} ({axes.settings})" if axes.settings else axes.method
        words = (axes.model, method, *axes[4:10])
        lines.append(_line(words, rows, ZERO_SHOT, measured))
        data += [_tidy(axes, task, metric, rows) for task, metric in measured]
    title = "Language models: zero-shot tasks"
    legend = (*_legend(asked), *_versions(asked))
    return [Table("llm_zero_shot", title, (*heads, Column("seeds")), tuple(lines), legend, (), tuple(data))]


def _measured(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Tasks and metrics in the order of their first appearance."""
    found = {
        (task, metric): None
        for row in rows
        for task, answers in row[ZERO_SHOT]["tasks"].items()
        for metric in answers["metrics"]
    }
    return list(found)


def _values(rows: Sequence[Row], column: str, task: str, metric: str, what: str) -> list[float]:
    metrics = (row[column]["tasks"].get(task, {}).get("metrics", {}).get(metric, {}) for row in rows)
    return [float(found[what]) for found in metrics if found.get(what) is not None]


def _line(
    words: Sequence[str], rows: Sequence[Row], column: str, measured: Sequence[tuple[str, str]]
) -> tuple[Cell, ...]:
    cells, plain = [], []
    for task, metric in measured:
        values, errors = (_values(rows, column, task, metric, what) for what in ("value", "stderr"))
        error = f" ± {mean(errors):.1f}" if errors else ""
        cells.append(Cell(f"{mean(values):.1f}{error}", mean(values)) if values else Cell())
        plain += [mean(values)] if values and metric == "acc" else []
    average = Cell(f"{mean(plain):.1f}", mean(plain)) if plain else Cell()
    num_seeds = len({row["seed"] for row in rows})
    return (*map(Cell, words), *cells, average, Cell(str(num_seeds), num_seeds))


def _tidy(axes: "Axes", task: str, metric: str, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, float | None] = {}
    for column in (ZERO_SHOT, DENSE_ZERO_SHOT):
        values, errors = (_values(rows, column, task, metric, what) for what in ("value", "stderr"))
        name = "dense_" if column == DENSE_ZERO_SHOT else ""
        found |= {f"{name}value": mean(values) if values else None, f"{name}stderr": mean(errors) if errors else None}
    return {**axes._asdict(), "task": task, "metric": metric, **found, "num_seeds": len({row["seed"] for row in rows})}


def _legend(asked: "Mapping[Axes, Sequence[Row]]") -> Iterator[str]:
    yield (
        "Per cent of questions whose right answer is the likeliest (acc), also by the likelihood per byte (acc_norm), "
        "± the standard error over questions; both are means over seeds. A mean over tasks of few questions is as "
        "noisy as they are."
    )
    begins = {row[ZERO_SHOT]["special_tokens"] for rows in asked.values() for row in rows}
    tokens = {True: "what the tokenizer puts before every text", False: "no special token"}
    yield f"Questions begin with {' or '.join(tokens[value] for value in sorted(begins))}."


def _versions(asked: "Mapping[Axes, Sequence[Row]]") -> Iterator[str]:
    """What decides the answers beside the network: versions of harness and tasks, numbers of questions."""
    rows = [row[ZERO_SHOT] for members in asked.values() for row in members]
    described = dict.fromkeys(
        f"{task} {answers['version']} ({answers['num_samples']} questions, {answers['num_shots']} shown before)"
        for row in rows
        for task, answers in row["tasks"].items()
    )
    harness = ", ".join(dict.fromkeys(str(row["harness"]) for row in rows))
    yield f"lm-evaluation-harness {harness}; versions of tasks: {'; '.join(described)}."
