"""spp benchmark: how fast networks are here."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp.cli.columns import in_columns
from spp.plan.numbers import flops_unit, format_flops
from spp.store.benchmarks import keep_benchmark
from spp.text import visible

if TYPE_CHECKING:
    from spp.deploy.benchmark import Benchmark

_HEADS = (
    *("network", "runtime", "device", "batch", "threads", "ms", "quartiles", "per s", "MB"),
    *("speed-up", "ideal", "of ideal"),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkWords:
    """What was typed; see `spp.deploy.benchmark.BenchmarkRequest`. 0 threads: all; no device: all that are here; keeps:
    whether the store keeps what was measured."""

    networks: Sequence[str]
    runtimes: Sequence[str]
    batch_sizes: Sequence[int]
    num_threads: Sequence[int]
    device: str | None
    seconds: float
    figure: Path | None
    keeps: bool


def benchmark(root: Path, words: BenchmarkWords, *, as_json: bool) -> int:
    """Measure, and show a table."""
    if 0 in words.batch_sizes:
        raise ValueError("--batch: 0 is not allowed; allowed: 1 or more; use 1,32")
    if words.figure is not None and words.figure.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--figure: {str(words.figure)!r} is not allowed; allowed: a .png, .pdf or .svg; name one")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # of torch's profiler, which tells of its every start
    import torch

    from spp.deploy import benchmark as worker

    if words.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: 'cuda' is not here; allowed: cpu; use it, or a machine with a GPU")
    here = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    every = len(os.sched_getaffinity(0))
    request = worker.BenchmarkRequest(
        networks=words.networks,
        runtimes=words.runtimes,
        batch_sizes=words.batch_sizes,
        num_threads=tuple(dict.fromkeys(number or every for number in words.num_threads)),
        devices=here if words.device is None else (words.device,),
        seconds=words.seconds,
    )
    made = worker.benchmark(request, lambda line: print(f"measuring: {line}", file=sys.stderr))
    plain = _plain(made)
    if words.keeps:
        print(f"kept: {visible(str(keep_benchmark(root, plain)))}", file=sys.stderr)
    if words.figure is not None:
        from spp.report.benchmark_figure import draw
        from spp.report.drawing import save

        drawing = draw(plain, words.figure.stem)
        save(drawing, words.figure.parent, [words.figure.suffix[1:]])
    if as_json:
        print(json.dumps(plain, indent=1))
        return 0
    print("\n".join(_lines(plain)))
    if words.figure is not None:
        print(f"figure: {visible(str(words.figure))}")
    return 0


def _plain(made: "Benchmark") -> dict[str, Any]:
    networks = [
        {
            "name": each.name,
            "part": each.part,
            "macs": each.cost.macs,
            "params": each.cost.params,
            "dense": each.dense,
            "origin": dict(each.origin),
        }
        for each in made.candidates
    ]
    rows = [{**asdict(row), "of_ideal": row.of_ideal} for row in made.rows]
    return {"machine": made.machine, "networks": networks, "rows": rows, "skipped": made.skipped}


def _lines(plain: Mapping[str, Any]) -> list[str]:
    machine = plain["machine"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    lines = [f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}{gpu}", ""]
    unit = flops_unit(max((each["macs"] for each in plain["networks"]), default=0))
    sizes = [
        (each["name"], each["dense"] or "", format_flops(each["macs"], unit), f"{each['params']:,}")
        for each in plain["networks"]
    ]
    lines += in_columns([("network", "cut from", f"FLOPs ({unit}, multiply-adds)", "parameters"), *sizes], num_left=2)
    lines += ["", *in_columns([_HEADS, *map(_cells, plain["rows"])], num_left=3)]
    lines += [f"{runtime} is not measured: {reason}" for runtime, reason in plain["skipped"].items()]
    return lines


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["network"],
        row["runtime"],
        row["device"],
        str(row["batch_size"]),
        str(row["num_threads"]),
        f"{row['median_ms']:.4g}",
        f"{row['low_ms']:.4g} to {row['high_ms']:.4g}",
        f"{row['per_second']:.4g}",
        _number(row["peak_mb"]),
        _number(row["speed_up"]),
        _number(row["ideal"]),
        _number(row["of_ideal"]),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
