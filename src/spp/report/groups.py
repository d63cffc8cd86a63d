"""What members have in common: workload, combination, budget; and how the numbers of several are written."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple, TypeVar

from spp.plan.numbers import flops_unit, format_size
from spp.record.metrics import AFTER, DENSE, MetricInfo, values_of
from spp.record.record import PathSource, RequestedMember
from spp.record.rows import Row
from spp.record.settings import differing_settings, leaves
from spp.report.table import Cell

Key = TypeVar("Key")


class Workload(NamedTuple):
    """What members are compared on: a task for a model on a data set."""

    task: str
    model: str
    data: str

    @classmethod
    def of(cls, row: Row) -> "Workload":
        """The workload of a row."""
        return cls(row["task"], row["model"], row["data"])

    @classmethod
    def of_source(cls, source: PathSource | RequestedMember) -> "Workload":
        """The workload of a path or of a member that was asked for."""
        return cls(source.task, source.model, source.data)

    @property
    def title(self) -> str:
        """For people: vit on digits."""
        return f"{self.model} on {self.data}"


def flops_unit_of(rows: Sequence[Row]) -> str:
    """In which unit the multiply-adds of members are written, G or M: by their largest dense network."""
    return flops_unit(max((row["dense_macs"] for row in rows), default=math.inf))


class Combination(NamedTuple):
    """A method in one variant on a workload: one line of a figure, one block of a table."""

    method: str
    preset: str | None
    variant: str
    task: str
    model: str
    data: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Combination":
        """The combination of a row of the record, or of anything else with these columns."""
        return cls(*(row[name] for name in cls._fields))

    @classmethod
    def of_source(cls, source: PathSource | RequestedMember) -> "Combination":
        """The combination of a path or of a member that was asked for."""
        return cls(*(getattr(source, name) for name in cls._fields))

    @property
    def label(self) -> str:
        """Name of the method with its preset, which an SPP row always tells."""
        return _label(self.method, self.preset, self.variant)

    @property
    def short_label(self) -> str:
        """The same without the preset that is the default."""
        return _label(self.method, None if self.preset == "priced" else self.preset, self.variant)


class Group(NamedTuple):
    """A combination at one budget; its members are those of several seeds."""

    combination: Combination
    budget_kind: str
    budget_asked: float

    @property
    def budget(self) -> str:
        """The budget as people write it: macs 50 %."""
        return budget_text(self.budget_kind, self.budget_asked)


def group_rows(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """The rows of every group, in the order of their first appearance."""
    return _grouped(rows, lambda row: Group(Combination.of(row), row["budget_kind"], row["budget_asked"]))


def by_combination(rows: Iterable[Row]) -> dict[Combination, list[Row]]:
    """The rows of every combination, in the order of their first appearance."""
    return _grouped(rows, Combination.of)


def by_workload(rows: Iterable[Row]) -> dict[Workload, list[Row]]:
    """The rows of every workload, in the order of their first appearance."""
    return _grouped(rows, Workload.of)


def by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of every task, in the order of their first appearance."""
    return _grouped(rows, lambda row: str(row["task"]))


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def tasks_to_name(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """By task the words that name it in titles and files: none where all rows are of one task."""
    tasks = list(by_task(rows))
    return {task: (task,) if len(tasks) > 1 else () for task in tasks}


def budget_text(kind: str, value: float) -> str:
    """A budget with its kind: macs 50 %, params 15.7M."""
    return f"{kind} {size_text(value)}"


def size_text(value: float) -> str:
    """A fraction of the dense model in percent, a count with its letter."""
    return f"{100 * value:g} %" if value <= 1 else format_size(value)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The mean, and where there are several values their standard deviation."""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"


def spread_cell(values: Sequence[float], marks: str = "", digits: int = 1) -> Cell:
    """`spread` as a cell."""
    return Cell(spread(values, digits), mean(values), marks) if values else Cell()


def metric_cell(rows: Iterable[Row], metric: MetricInfo, column: str = AFTER, marks: str = "") -> Cell:
    """Mean and deviation of a metric over rows, in a column of theirs (`spp.record.metrics`)."""
    values = values_of(rows, metric.name, column)
    return spread_cell(values, marks, metric.digits(mean(values))) if values else Cell()


def dense_cell(rows: Iterable[Row], metric: MetricInfo) -> Cell:
    """The same of dense networks, each once."""
    return metric_cell(dense_rows(rows), metric, DENSE)


def metric_columns(values: Sequence[float], metric: MetricInfo) -> Mapping[str, object]:
    """A metric's mean and deviation as columns of tidy data."""
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "value": mean(values) if values else None,
        "deviation": stdev(values) if len(values) > 1 else None,
    }


def dense_rows(rows: Iterable[Row]) -> list[Row]:
    """One row for every dense network."""
    return list({row["dense_key"]: row for row in rows}.values())


def dense_groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The dense networks by name, one row for each; what differs by more than its seed has a line of its own."""
    groups = _grouped(dense_rows(rows), lambda row: json.dumps(row["dense_config"], sort_keys=True))
    settings = {name: {field: str(value) for field, value in leaves(json.loads(name))} for name in groups}
    return {_label("dense", None, words): groups[name] for name, words in differing_settings(settings).items()}


def search_rows(rows: Iterable[Row]) -> list[Row]:
    """One row for every search with its walk; for each further walk after it one with the cost of that walk alone."""
    found: dict[tuple[str, str], Row] = {}
    searches = set[str]()
    for row in rows:
        key = row["search_key"], row["family_key"]
        if key in found:
            continue
        is_further = row["search_key"] in searches
        walk = {f"search_{unit}": row[f"walk_{unit}"] for unit in ("seconds", "gpu_seconds")}
        found[key] = {**row, **walk, "epochs_search": row["epochs_prune"]} if is_further else row
        searches.add(row["search_key"])
    return list(found.values())


def num_searches(rows: Iterable[Row]) -> int:
    """How many searches the rows come from, whatever was walked after them."""
    return len({row["search_key"] for row in rows})


def seeds_text(groups: Iterable[Sequence[Row]]) -> str:
    """Over how many seeds means are: 3 seeds, 2 to 3 seeds; empty where all have one."""
    counts = sorted({len({row["seed"] for row in rows}) for rows in groups})
    if counts[-1] == 1:
        return ""
    return f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"


def missed(row: Row) -> float:
    """Percent of the dense model by which a member is off its budget; 0 for budgets in units, which nobody counts, and
    in single weights, whose number is exact."""
    if row["budget_kind"] in ("units", "weights"):
        return 0.0
    dense: float = row[f"dense_{row['budget_kind']}"]
    asked = row["budget_asked"] if row["budget_asked"] <= 1 else row["budget_asked"] / dense
    return 100 * float(abs(asked - row[row["budget_kind"]] / dense))


def epochs_text(rows: Sequence[Row]) -> str:
    """Epochs of search and walk, and of finetuning: 40 + 300; of members finetuned for 2 and for 9 epochs: 14 + 2/9."""
    found: dict[int, set[int]] = {}
    for row in rows:
        found.setdefault(row["epochs_search"], set()).add(row["epochs_finetune"])
    return ", ".join(f"{search} + {'/'.join(map(str, sorted(found[search])))}" for search in sorted(found))


def devices_text(rows: Iterable[Row]) -> str:
    """The devices that the rows were made on."""
    return ", ".join(sorted({str(row["device"]) for row in rows}))


def search_cost_cell(rows: Iterable[Row]) -> Cell:
    """Mean cost of one search with its walk: GPU-hours, or seconds where no GPU was used."""
    searches = search_rows(rows)
    count = num_searches(searches)
    gpu_hours = sum(row["search_gpu_seconds"] for row in searches) / count / 3600
    seconds = sum(row["search_seconds"] for row in searches) / count
    hint = f"mean of {count}; each for up to {max(row['num_members_of_search'] for row in searches)} members"
    return Cell(duration(seconds, gpu_hours), gpu_hours or seconds / 3600, hint=hint)


def duration(seconds: float, gpu_hours: float) -> str:
    """GPU-hours where there are any, else seconds: 3.2 GPU-h, 34 s."""
    if not gpu_hours:
        return f"{seconds:.0f} s"
    return f"{gpu_hours:.1f} GPU-h" if gpu_hours >= 0.1 else f"{3600 * gpu_hours:.0f} GPU-s"


def _label(method: str, preset: str | None, variant: str) -> str:
    details = ", ".join(detail for detail in (preset, variant) if detail)
    return f"{method} ({details})" if details else method
