#!/usr/bin/env python
"""How well spp extract keeps what it promises, on the paths of a store: sizes, accuracy, repair, latency, time.

    scripts/measure_extract.py STORE --paths KEY KEY ... --out results/extract

Writes budgets.csv (a line for every path, budget and treatment), latency.csv and seconds.csv, and README.md with their
tables. Nothing is written to the store.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import spp
from spp.deploy.extract import ExtractRequest, extract
from spp.deploy.quality import open_measured_data
from spp.deploy.timing import Circumstances, latency
from spp.stages.extract import OpenedPath
from spp.store.store import Store

BUDGETS = [round(0.05 * number, 2) for number in range(19, 1, -1)] + [0.08, 0.06]
NUM_REPAIR_SAMPLES = 256
WHERE = Circumstances("cpu", 256, 1)


def measure_budgets(store: Store, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Members at twenty budgets of every path, as they are cut and repaired, on the test set."""
    rows = []
    for key in keys:
        opened = OpenedPath(store, key)
        data, dense = open_measured_data(store, opened.dense_key)
        dearest = max(pair.macs_per_unit for pair in opened.path.pairs)
        for budget in BUDGETS:
            masks = opened.select("macs", budget, 1)
            cut = opened.cut(masks)
            spent = opened.path.cost_of(masks).macs
            row = {"path": key, "budget": budget, "achieved": spent / opened.dense.macs}
            row["below_by_units"] = (budget * opened.dense.macs - spent) / dearest
            row["cut"] = data.measure(cut.network)["top1"]["value"]
            row["repaired"] = data.measure(opened.repaired(cut, NUM_REPAIR_SAMPLES).network)["top1"]["value"]
            row["dense"] = dense["top1"]["value"]
            rows.append(row)
            print(row, flush=True)
    return rows


def measure_latency(store: Store, key: str) -> list[dict[str, Any]]:
    """Members of wanted latencies, measured again from their folders; and the dense network before and behind."""
    rows = []
    opened = OpenedPath(store, key)
    for share in (0.9, 0.75, 0.6, 0.5):
        dense_ms = latency(opened.dense_network(), WHERE).median_ms
        target_ms = round(share * dense_ms, 3)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "member")
            request = ExtractRequest(
                source=key, kind="latency-ms", size=target_ms, out=out, where=WHERE, multiple_of=1, measures=False
            )
            made = extract(store, request)
            again_ms = latency(spp.load(out), WHERE).median_ms
        row = {"dense_ms": dense_ms, "target_ms": target_ms, "again_ms": again_ms, "miss": again_ms / target_ms - 1}
        rows.append({**row, "macs": made.cost.macs / made.dense.macs})
        print(rows[-1], flush=True)
    return rows


def measure_seconds(store: Store, key: str, num_runs: int = 3) -> list[dict[str, Any]]:
    """Seconds of the whole command without measuring, on the clock and on the processor."""
    rows = []
    for _ in range(num_runs):
        with tempfile.TemporaryDirectory() as folder:
            words = ["extract", key, "--macs", "0.4", "--no-measure", "--out", f"{folder}/member"]
            command = [sys.executable, "-m", "spp.cli.main", *words, f"paths.store={store.root}"]
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows.append({"seconds": seconds, "processor_seconds": processor, "load": os.getloadavg()[0]})
        print(rows[-1], flush=True)
    return rows


def budget_lines(rows: Sequence[dict[str, Any]], num_paths: int) -> list[str]:
    """Means and standard deviations over the paths as Markdown."""
    worst, dense = max(row["below_by_units"] for row in rows), _spread([row["dense"] for row in rows[:: len(BUDGETS)]])
    above = sum(row["below_by_units"] < 0 for row in rows)
    lines = [
        "# What spp extract delivers",
        "",
        f"Top-1 in percent, mean and standard deviation over {num_paths} paths, repaired with {NUM_REPAIR_SAMPLES}",
        f"training samples. The dense networks have {dense}. Of {len(rows)} members {above} were above their budget;",
        f"the furthest below was so by {worst:.2f} of the dearest unit.",
        "",
        "| budget | achieved | cut | repaired | repaired - cut | worse on |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for budget in dict.fromkeys(row["budget"] for row in rows):
        here = [row for row in rows if row["budget"] == budget]
        gains = [row["repaired"] - row["cut"] for row in here]
        cut, repaired = ([row[name] for row in here] for name in ("cut", "repaired"))
        cells = [f"{budget:g}", f"{mean(row['achieved'] for row in here):.4f}", _spread(cut), _spread(repaired)]
        cells += [_spread(gains), f"{sum(gain < 0 for gain in gains)} of {len(gains)}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def latency_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The latencies as Markdown."""
    lines = [
        f"Latency asked for, and measured again from the folder ({WHERE.label}):",
        "",
        "| dense ms | asked ms | again ms | off by | FLOPs |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [*(f"{row[name]:.3g}" for name in ("dense_ms", "target_ms", "again_ms"))]
        cells += [f"{100 * row['miss']:+.1f} %", f"{100 * row['macs']:.1f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def seconds_line(rows: Sequence[dict[str, Any]]) -> str:
    """The time of the command in a sentence."""
    clock, processor = (median(row[name] for row in rows) for name in ("seconds", "processor_seconds"))
    return (
        f"`spp extract` without measuring: {clock:.1f} s on the clock (median of {len(rows)}), {processor:.1f} s of\n"
        f"processor time, at a load of {rows[0]['load']:.0f}."
    )


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--paths", nargs="+", required=True, metavar="KEY", help="of update or search stages")
    parser.add_argument("--out", type=Path, default=Path("results/extract"))
    words = parser.parse_args()
    store = Store(words.store)
    words.out.mkdir(parents=True, exist_ok=True)
    seconds = measure_seconds(store, words.paths[0])
    _write_csv(words.out / "seconds.csv", seconds)
    times = measure_latency(store, words.paths[0])
    _write_csv(words.out / "latency.csv", times)
    rows = measure_budgets(store, words.paths)
    _write_csv(words.out / "budgets.csv", rows)
    lines = [*budget_lines(rows, len(words.paths)), "", *latency_lines(times), "", seconds_line(seconds)]
    (words.out / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
