"""What the plot of metrics over size is drawn from: members, and panels of the series that they make up."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from spp.plan.numbers import format_size
from spp.record.metrics import AFTER, BEFORE, metrics_of, value_of, values_of
from spp.record.rows import Row
from spp.report.figures.curves import Panel, dense_values, panels
from spp.report.groups import Workload
from spp.report.palette import Series, Style, method_order, styles
from spp.report.published import Published, PublishedValue

Json = dict[str, Any]

KINDS = {"macs": "FLOPs", "params": "params", "units": "units", "weights": "single weights"}
WHEN = {AFTER: "after finetuning", BEFORE: "before finetuning"}
"""When the values of a column were measured."""

_NUMBERS = ("seed", "macs", "params", "epochs_search", "epochs_finetune")
_COSTS = ("search_seconds", "search_gpu_seconds", "num_members_of_search", "finetune_seconds")
_KEYS = ("key", "member_kind", "family_key", "search_key", "dense_key")
_DASHES = {"-": (), "--": (3.7, 1.6), "-.": (6.4, 1.6, 1.0, 1.6), ":": (1.0, 1.65)}


class Pool:
    """Values that many members share, each kept once; members hold their place in `values`."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Where `value` is kept; it must be such that JSON can hold it."""
        name = json.dumps(value, sort_keys=True)
        if name not in self._places:
            self._places[name] = len(self.values)
            self.values.append(value)
        return self._places[name]


def plot_data(rows: Sequence[Row], published: Published) -> Json:
    """Everything the plot needs: `members` in the order of `rows`, `panels`, and the `pool`."""
    pool = Pool()
    folders = _Folders(pool)
    looks = styles([*(Series.of(row) for row in rows), *(Series(value.method) for value in published.values)])
    members = [_member(row, pool, folders) for row in rows]
    return {
        "panels": [_panel(panel, rows, published.values, looks) for panel in panels(rows)],
        "members": members,
        "pool": pool.values,
    }


def style_json(style: Style) -> Json:
    """A style in the terms of SVG; dashes in pixels."""
    dashes = _DASHES[style.line] if isinstance(style.line, str) else style.line[1]
    return {
        "color": style.color,
        "dashes": " ".join(f"{length * style.width:.3g}" for length in dashes),
        "marker": style.marker,
        "width": style.width,
    }


def _member(row: Row, pool: Pool, folders: "_Folders") -> Json:
    return {
        **{name: row.get(name) for name in (*_NUMBERS, *_COSTS, *_KEYS)},
        "metrics": {_metric_id(column, name): value_of(row, name, column) for column in WHEN for name in row[column]},
        **{name: pool.place(row.get(name)) for name in ("point", "sweep", "command", "device", "git_commit")},
        "config": {name: pool.place(part) for name, part in (row.get("config") or {}).items()},
        "method_config": pool.place(row.get("method_config")),
        "stages": [[kind, key, folders.place(row, kind, key)] for kind, key in _stages(row)],
    }


def _stages(row: Row) -> list[tuple[str, str]]:
    """Kind and key of the stages that a member comes from, the last first."""
    is_walked = row["family_key"] != row["search_key"]
    search = "update" if row.get("path_key") else "search"
    found = [("measure", row["key"])]
    if row["member_key"] != row["family_key"]:
        found.append((row["member_kind"], row["member_key"]))
    if is_walked:
        found.append(("prune", row["family_key"]))
    return [*found, (search, row["search_key"]), ("dense", row["dense_key"])]


class _Folders:
    """Looks up each stage's folder once: its path, and a link to it where it can be reached from here."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._places: dict[tuple[str, str], int] = {}

    def place(self, row: Row, kind: str, key: str) -> int:
        if (kind, key) not in self._places:
            folder = Path(row["folder"]).absolute().parents[1] / kind / key
            link = folder.as_uri() if folder.is_dir() else None
            self._places[kind, key] = self._pool.place({"path": str(folder), "link": link})
        return self._places[kind, key]


def _panel(
    panel: Panel,
    rows: Sequence[Row],
    published: Sequence[PublishedValue],
    looks: Mapping[Series, Style],
) -> Json:
    here = [
        (number, row)
        for number, row in enumerate(rows)
        if (Workload.of(row), row["budget_kind"]) == (panel.workload, panel.budget_kind)
    ]
    every = [row for _, row in here]
    series = sorted(dict.fromkeys(Series.of(row) for row in every), key=method_order)
    dense = {"macs": every[0]["dense_macs"], "params": every[0]["dense_params"]}
    titles = [panel.workload.title, *panel.task_words, f"budgets in {KINDS[panel.budget_kind]}"]
    quoted = [value for value in published if (value.model, value.data) == panel.workload[1:]]
    metrics = list(_metrics(every))
    return {
        "title": ", ".join(titles),
        "dense": dense,
        "metrics": metrics,
        # Where some ran without an accelerator, seconds are all that can be compared.
        "cost": "search_gpu_seconds" if all(row["search_gpu_seconds"] for row in every) else "search_seconds",
        "series": [
            *(_series(one, here, looks[one]) for one in series),
            *_published_series(quoted, {metric["id"] for metric in metrics}, dense, looks),
        ],
    }


def _metrics(rows: Sequence[Row]) -> Iterator[Json]:
    """What can be on the vertical axis: every metric that a member has, after and before finetuning."""
    for metric in metrics_of(rows):
        for column, when in WHEN.items():
            values = values_of(rows, metric.name, column)
            if values:
                dense = dense_values(rows, metric)
                details = ", ".join(part for part in (metric.unit, metric.direction.strip(" ()")) if part)
                yield {
                    "id": _metric_id(column, metric.name),
                    "name": f"{metric.label} {when}",
                    "title": f"{metric.label} {when}" + (f" ({details})" if details else ""),
                    "label": metric.label,
                    "unit": metric.unit,
                    "digits": metric.digits(mean(values)) + 1,
                    "dense": mean(dense) if dense else None,
                }


def _metric_id(column: str, name: str) -> str:
    return f"{column}/{name}"


def _series(series: Series, rows: Iterable[tuple[int, Row]], style: Style) -> Json:
    budgets: dict[float, list[int]] = {}
    kind = ""
    for number, row in rows:
        if Series.of(row) == series:
            budgets.setdefault(row["budget_asked"], []).append(number)
            kind = row["budget_kind"]
    return {
        "label": series.label,
        "method": series.method,
        "preset": series.preset,
        "variant": series.variant,
        "style": style_json(style),
        "points": [{"asked": asked_text(kind, asked), "members": budgets[asked]} for asked in sorted(budgets)],
    }


def _published_series(
    values: Sequence[PublishedValue], metric_ids: Collection[str], dense: Json, looks: Mapping[Series, Style]
) -> list[Json]:
    """Published values of the metrics shown of which the size is known, one series per method."""
    found: dict[str, list[Json]] = {}
    for value in sorted(values, key=lambda value: method_order(Series(value.method))):
        sizes = _published_sizes(value, dense)
        if _metric_id(AFTER, value.metric) not in metric_ids or not sizes:
            continue
        point = {
            "asked": asked_text(value.budget_kind, value.budget) if value.budget_kind and value.budget else "unknown",
            "size": sizes,
            "metric": {_metric_id(AFTER, value.metric): value.value},
            "source": value.source,
            "note": value.note,
        }
        found.setdefault(value.method, []).append(point)
    return [
        {
            "label": f"{method}, published",
            "method": method,
            "style": style_json(looks[Series(method)]),
            "published": points,
        }
        for method, points in found.items()
    ]


def _published_sizes(value: PublishedValue, dense: Json) -> dict[str, float]:
    """Counts of a published model by kind, as far as they are stated or follow from its budget."""
    found = {kind: count for kind, count in (("macs", value.macs), ("params", value.params)) if count is not None}
    if value.budget is not None and value.budget_kind in ("macs", "params"):
        of_budget = value.budget if value.budget > 1 else value.budget * dense[value.budget_kind]
        found.setdefault(value.budget_kind, of_budget)
    return found


def asked_text(kind: str, asked: float) -> str:
    """A budget in words."""
    return f"{100 * asked:g} % of {KINDS[kind]}" if asked <= 1 else f"{format_size(asked)} {KINDS[kind]}"
