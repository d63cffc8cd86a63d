"""Values beside the published ones: what Table 1, CIFAR-10, retrieval and the LLM table share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from spp.plan.numbers import FLOPS_SCALES
from spp.record.metrics import AFTER, DENSE, MetricInfo, counts_of, counts_text, headline, value_of, values_of
from spp.record.rows import Row
from spp.report.footnotes import Footnotes, differences
from spp.report.groups import (
    Group,
    budget_text,
    dense_groups,
    devices_text,
    epochs_text,
    flops_unit_of,
    group_rows,
    metric_cell,
    num_searches,
    search_cost_cell,
    search_rows,
)
from spp.report.missing import SPP_PRESETS
from spp.report.published import HEADLINE, METRICS, Published, PublishedValue
from spp.report.table import Cell, Column, Table

LEGEND = (
    "{values}; ours are on the test set after finetuning, mean ± standard deviation over the seeds. "
    "Published numbers are quoted from their sources; an empty cell is unknown. Difference: ours minus published.",
    "Params and FLOPs are those achieved, counted on the compact model; FLOPs are multiply-adds of Linear, Conv and "
    "matmul for one {sample}. A published number stands beside those of our members of the same method that are within "
    "2 % of its size. Of dense: FLOPs, or parameters where they are the budget.",
    "Epochs are those of search and walk, and of finetuning. Search cost is the mean of one search with its walk; "
    "where a method searches once for all budgets, they share it.",
)
TOLERANCE = 0.02
"""How far the achieved size may be from the published one, as a share of it."""


def columns(metric: MetricInfo, lines: "Sequence[Line]") -> tuple[Column, ...]:
    """The columns of a table of some lines whose values have the unit and the samples of `metric`."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return (
        Column("model", is_number=False),
        Column("method", is_number=False),
        Column("metric", is_number=False),
        Column("budget asked", is_number=False),
        Column("params (M)"),
        Column(f"FLOPs ({_flops_unit(lines)})"),
        Column("of dense (%)"),
        Column(f"ours{unit}"),
        Column(f"published{unit}"),
        Column("difference"),
        Column("seeds"),
        Column(f"test {metric.of}"),
        Column("epochs", is_number=False),
        Column("search cost"),
        Column("device", is_number=False),
    )


def legend(metric: MetricInfo) -> tuple[str, ...]:
    """What is said below every such table."""
    values = "Accuracies in percent" if metric.name in METRICS else metric.description
    return tuple(line.format(values=values, sample=metric.sample) for line in LEGEND)


@dataclass(frozen=True)
class Line:
    """One line: our members of several seeds, a published value, or both. `method` is the name with its preset."""

    model: str
    method: str
    metric: MetricInfo
    budget: str
    rows: Sequence[Row] = ()
    value: PublishedValue | None = None
    preset: str | None = None
    is_dense: bool = False
    empty: str = "not run"

    @property
    def ours(self) -> list[float]:
        """Our values, one per seed."""
        return values_of(self.rows, self.metric.name, self.column)

    @property
    def column(self) -> str:
        """The column of the rows that holds them."""
        return DENSE if self.is_dense else AFTER


def lines_of_model(
    model: str, rows: Sequence[Row], values: Sequence[PublishedValue], published: Published
) -> list[Line]:
    """The dense network, the published values with what we have of them, and what else we have of a model.

    rows: those of one workload.
    """
    groups = group_rows(rows)
    metric = headline(rows) if rows else HEADLINE
    dense = dense_groups(rows) if rows else {"dense": list[Row]()}
    lines = [Line(model, name, metric, "", found, is_dense=True) for name, found in dense.items()]
    shown: set[Group] = set()
    for value in values:
        found = _matching(value, groups, published)
        shown |= set(found)
        lines += [_line(group, groups[group], value) for group in found]
        lines += [_not_run(value, preset) for preset in _missing_presets(value, found)]
    lines += [_line(group, groups[group], None) for group in groups if group not in shown]
    return lines


def value_line(value: PublishedValue, empty: str = "not run") -> Line:
    """A published value that we have nothing for; `empty` says why."""
    return _not_run(value, None, empty)


def _not_run(value: PublishedValue, preset: str | None, empty: str = "not run") -> Line:
    method = f"{value.method} ({preset})" if preset else value.method
    budget = "" if value.budget is None else budget_text(value.budget_kind or "", value.budget)
    return Line(value.model, method, METRICS[value.metric], budget, value=value, preset=preset, empty=empty)


def _line(group: Group, rows: Sequence[Row], value: PublishedValue | None) -> Line:
    metric = METRICS[value.metric] if value else headline(rows)
    combination = group.combination
    return Line(combination.model, combination.label, metric, group.budget, rows, value, combination.preset)


def _missing_presets(value: PublishedValue, found: Iterable[Group]) -> list[str | None]:
    """Presets of SPP that have no members at a published value; [None] for another method without any."""
    there = {group.combination.preset for group in found}
    if value.method == "spp":
        return [preset for preset in SPP_PRESETS if preset not in there]
    return [] if there else [None]


def _matching(value: PublishedValue, groups: Mapping[Group, Sequence[Row]], published: Published) -> list[Group]:
    """Of every combination with the value's method the group that is closest to its size, if one is close enough."""
    closest: dict[tuple[str | None, str], tuple[float, Group]] = {}
    for group, rows in groups.items():
        own = group.combination
        is_same = (own.method, own.model, own.data) == (value.method, value.model, value.data)
        if not is_same or any(value_of(row, value.metric) is None for row in rows):
            continue
        miss = _miss(value, rows)
        if miss <= min(TOLERANCE, closest.get((own.preset, own.variant), (TOLERANCE,))[0]):
            closest[own.preset, own.variant] = miss, group
    return [group for _, group in closest.values()]


def _miss(value: PublishedValue, rows: Sequence[Row]) -> float:
    """Distance of the achieved size from the published one, as a share of it."""
    if value.budget is None or value.budget_kind not in ("macs", "params"):
        return float("inf")
    achieved = mean(row[value.budget_kind] for row in rows)
    if value.budget <= 1:
        achieved /= rows[0][f"dense_{value.budget_kind}"]
    return float(abs(achieved / value.budget - 1))


def _flops_unit(lines: Sequence[Line]) -> str:
    """G or M; where published networks, which are large, are among the lines, G."""
    if any(line.value is not None for line in lines):
        return "G"
    return flops_unit_of([row for line in lines for row in line.rows])


def cells(lines: Sequence[Line], published: Published, notes: Footnotes) -> tuple[tuple[Cell, ...], ...]:
    """The lines as rows of a table with `columns`."""
    scale = FLOPS_SCALES[_flops_unit(lines)]
    return tuple(_cells(line, published, notes, scale) for line in lines)


def _cells(line: Line, published: Published, notes: Footnotes, scale: float) -> tuple[Cell, ...]:
    rows = line.rows
    marks = "" if line.is_dense or not rows else notes.marks(differences(rows, published))
    head = (Cell(line.model), Cell(line.method), Cell(line.metric.label), Cell(line.budget))
    difference = _difference(line)
    values = (
        metric_cell(rows, line.metric, line.column, marks) if rows else Cell(line.empty),
        _published_cell(line.value, notes),
        Cell() if difference is None else Cell(_change(line, difference), difference),
    )
    counts = counts_of(rows, line.metric.name)
    seeds = {row["seed"] for row in rows}
    tail = (
        Cell(str(len(seeds)), len(seeds), hint=f"seeds {', '.join(map(str, sorted(seeds)))}") if rows else Cell(),
        Cell(counts_text(rows, line.metric.name), counts[-1]) if counts else Cell(),
        Cell() if line.is_dense or not rows else Cell(epochs_text(rows)),
        Cell() if line.is_dense or not rows else search_cost_cell(rows),
        Cell(devices_text(rows)),
    )
    return (*head, *_size_cells(line, scale), *values, *tail)


def _published_cell(value: PublishedValue | None, notes: Footnotes) -> Cell:
    if value is None:
        return Cell()
    marks = notes.marks([value.note]) if value.note else ""
    return Cell(f"{value.value:g}", value.value, marks, hint=value.source)


def _difference(line: Line) -> float | None:
    return mean(line.ours) - line.value.value if line.ours and line.value else None


def _change(line: Line, difference: float) -> str:
    return line.metric.change_text(difference, mean(line.ours))


def _size_cells(line: Line, scale: float) -> tuple[Cell, Cell, Cell]:
    """Parameters, FLOPs, and the share of the dense model: ours, else as far as the source tells."""
    if not line.rows:
        value = line.value
        share = value.budget if value is not None and value.budget is not None and value.budget <= 1 else None
        return (
            _number(value.params if value else None, 1e6),
            _number(value.macs if value else None, scale),
            Cell() if share is None else Cell(f"{100 * share:.1f}", 100 * share),
        )
    if line.is_dense:
        row = line.rows[0]
        return _number(row["dense_params"], 1e6), _number(row["dense_macs"], scale), Cell("100.0", 100.0)
    kind = "params" if line.rows[0]["budget_kind"] == "params" else "macs"
    share = 100 * mean(row[kind] / row[f"dense_{kind}"] for row in line.rows)
    params, macs = (mean(row[name] for row in line.rows) for name in ("params", "macs"))
    return _number(params, 1e6), _number(macs, scale), Cell(f"{share:.1f}", share)


def _number(value: float | None, scale: float) -> Cell:
    return Cell() if value is None else Cell(f"{value / scale:.4g}", value / scale)


def sources(lines: Iterable[Line]) -> tuple[str, ...]:
    """Where the published numbers come from."""
    by_source: dict[str, list[str]] = {}
    for line in lines:
        if line.value is not None:
            by_source.setdefault(line.value.source, []).append(f"{line.value.method} {line.value.value:g}")
    found = (f"{source}: {', '.join(dict.fromkeys(values))}" for source, values in by_source.items())
    return (f"Sources of the published numbers. {'; '.join(found)}.",) if by_source else ()


def tidy(lines: Iterable[Line]) -> Iterator[Mapping[str, Any]]:
    """The lines as tidy rows; sizes are counts."""
    for line in lines:
        rows, value, ours = line.rows, line.value, line.ours
        searches = [] if line.is_dense else search_rows(rows)
        yield {
            "model": line.model,
            "data": rows[0]["data"] if rows else value.data if value else None,
            "method": line.method,
            "metric": line.metric.name,
            "unit": line.metric.unit,
            "budget": line.budget,
            "params": mean(row["dense_params" if line.is_dense else "params"] for row in rows) if rows else None,
            "macs": mean(row["dense_macs" if line.is_dense else "macs"] for row in rows) if rows else None,
            "ours": mean(ours) if ours else None,
            "ours_deviation": stdev(ours) if len(ours) > 1 else None,
            "num_seeds": len({row["seed"] for row in rows}),
            "num_test_samples": next(iter(counts_of(rows, line.metric.name)), None),
            "published": value.value if value else None,
            "difference": _difference(line),
            "source": value.source if value else None,
            "epochs_search": searches[0]["epochs_search"] if searches else None,
            "epochs_finetune": searches[0]["epochs_finetune"] if searches else None,
            **{
                name: sum(row[name] for row in searches) / num_searches(searches) if searches else None
                for name in ("search_seconds", "search_gpu_seconds")
            },
            "device": devices_text(rows) or None,
        }


def published_table(name: str, title: str, published: Published, reason: str) -> Table:
    """A table of published values alone; `reason` says why this project has none of its own."""
    lines = [value_line(value, "cannot be run yet") for value in published.of_table(name)]
    notes = Footnotes()
    rows = cells(lines, published, notes)
    metric = lines[0].metric
    words = (reason, legend(metric)[0], *sources(lines), *notes.legend())
    return Table(name, title, columns(metric, lines), rows, words, (), tuple(tidy(lines)))
