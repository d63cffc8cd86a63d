"""Table 7: latency of the dense and the compressed CLIP, and of each tower, as far as `spp benchmark` measured it."""

from collections.abc import Iterable, Mapping
from typing import Any

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.groups import budget_text
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

COLUMNS = (
    Column("model", is_number=False),
    Column("network", is_number=False),
    Column("part", is_number=False),
    Column("batch"),
    Column("runtime", is_number=False),
    Column("device", is_number=False),
    Column("threads"),
    Column("dtype", is_number=False),
    Column("params (M)"),
    Column("FLOPs (G)"),
    Column("latency, ours (ms)"),
    Column("quartiles (ms)", is_number=False),
    Column("speed-up"),
    Column("ideal"),
    Column("latency, published (ms)"),
)
COMMAND = "spp benchmark DIR --keep"
LEGEND = (
    "Time of one call of the pair of encoders on as many images as texts, whole texts without padding, and of each "
    "encoder by itself: median and quartiles of torch.utils.benchmark, dense and compact networks in turn. FLOPs are "
    "of one pair. Speed-up over the dense network of the same run, and what its multiply-adds promise.",
    f"`{COMMAND}` measures a CLIP that was saved by `spp extract` or `spp.save_member` beside its dense network, at "
    "batch 1 and 32, and keeps it for this table. The paper's values are not known.",
)
PARTS = {"whole": "both", "vision": "vision", "text": "text"}
PARAMS = {"clip_large": 427_944_193, "clip_base": 149_620_737}
"""Parameters of the models of the paper, with pictures of 336 and of 224 pixels."""


def tables(record: Record, published: Published) -> list[Table]:
    """One table: the paper's two models, then every other CLIP that was measured."""
    lines = list(_lines(record.latencies))
    found: dict[str, list[Row]] = {model: [] for model in PARAMS}
    for line in lines:
        found.setdefault(line["model"], []).append(line)
    rows, data = [], []
    for model, measured in found.items():
        is_of_paper = model in PARAMS
        rows += [_cells(line, is_of_paper=is_of_paper) for line in measured]
        data += [_tidy(line) for line in measured]
        if not measured:
            rows += [_not_measured(model, network) for network in ("dense", "compressed")]
            data += [_tidy({"model": model, "network": network}) for network in ("dense", "compressed")]
    todo = tuple(f"{COMMAND} (of a pruned {model})" for model, measured in found.items() if not measured)
    return [Table("table7", "Table 7: latency of CLIP", COLUMNS, tuple(rows), LEGEND, todo, tuple(data))]


def _lines(latencies: Iterable[Row]) -> Iterable[Row]:
    """What was measured of networks of two towers, with the model, part after part and setting after setting."""
    latencies = list(latencies)
    wholes = {_whole(row): row for row in latencies if row["part"] == "whole"}
    with_towers = {_whole(row) for row in latencies if row["part"] != "whole"}
    lines = [
        {**row, "model": _model(wholes[_whole(row)]), "network": _network(row)}
        for row in latencies
        if _whole(row) in with_towers & wholes.keys()
    ]
    parts = list(PARTS)
    return sorted(lines, key=lambda line: (parts.index(line["part"]), *(str(line[name]) for name in _SETTING)))


_SETTING = ("runtime", "device", "processor", "num_threads", "dtype")


def _whole(row: Row) -> str:
    """The name of the network that a row is of, or of a tower of."""
    return str(row["network"]).removesuffix(f", {row['part']}")


def _model(row: Row) -> str:
    """Name in conf/model of the paper's, else what it was cut from; `row`: of the whole network."""
    known = (model for model, num_params in PARAMS.items() if num_params == row["dense_params"])
    return next(known, str(row["dense"] or row["network"]).removesuffix(", dense"))


def _network(row: Row) -> str:
    """dense, or how it was made smaller: its name, method and budget."""
    if row["dense"] is None:
        return "dense"
    origin = row["origin"]
    budget = origin.get("budget")
    words = [origin.get("method", ""), budget_text(budget["kind"], budget["value"]) if budget else ""]
    how = " ".join(word for word in words if word)
    return f"{_whole(row)} ({how})" if how else _whole(row)


def _cells(line: Row, *, is_of_paper: bool) -> tuple[Cell, ...]:
    low, high = line["low_ms"], line["high_ms"]
    return (
        Cell(line["model"]),
        Cell(line["network"]),
        Cell(PARTS[line["part"]]),
        Cell(str(line["batch_size"]), line["batch_size"]),
        Cell(line["runtime"]),
        Cell(line["processor"], hint=f"torch {line['torch']}, {line['measured_at']}"),
        Cell(str(line["num_threads"]), line["num_threads"]),
        Cell(line["dtype"]),
        Cell(f"{line['params'] / 1e6:.4g}", line["params"]),
        Cell(f"{line['macs'] / 1e9:.4g}", line["macs"]),
        Cell(f"{line['median_ms']:.4g}", line["median_ms"], hint=f"{line['num_runs']} runs"),
        Cell(f"{low:.4g} to {high:.4g}"),
        _ratio(line["speed_up"]),
        _ratio(line["ideal"]),
        Cell("unknown" if is_of_paper else ""),
    )


def _ratio(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:.2f}", value)


def _not_measured(model: str, network: str) -> tuple[Cell, ...]:
    blank = (Cell(),) * 7
    end = (Cell("not measured"), Cell(), Cell(), Cell(), Cell("unknown"))
    return (Cell(model), Cell(network), Cell("both"), *blank, *end)


_TIDY = (
    *("model", "network", "part", "batch_size", "runtime", "device", "processor", "num_threads", "dtype", "params"),
    *("macs", "median_ms", "low_ms", "high_ms", "num_runs", "per_second", "speed_up", "ideal", "torch", "measured_at"),
)


def _tidy(line: Row) -> Mapping[str, Any]:
    return {**{name: line.get(name) for name in _TIDY}, "published_latency_ms": None}
