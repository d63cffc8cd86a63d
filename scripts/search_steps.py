"""What a shorter search costs, from a store: python scripts/search_steps.py STORE --out results/search/cifar10_steps.

On the validation split, for every method, number of search steps and budget: accuracy and KL divergence from the dense
network, of members as they were cut and as they were repaired; mean and standard deviation over seeds. The sweep is

    spp run -m experiment=study_cifar10 method=spp update.epochs=0 update.steps=10,25,50,100,200 seed=0,1,2 \
        budget.values=[0.7,0.5,0.3,0.2] finetune.epochs=0 paths.data=DIR cluster=local

and may have further methods with search.steps. Writes OUT.csv (one row per value) and OUT.md.
"""

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spp.record.record import read_record
from spp.store.store import Store

METRICS = ("top1", "kl")
STATES = {"cut": "val_metrics_before", "repaired": "val_metrics_repaired"}
CELL = ("method", "state", "metric", "steps", "samples")


def collect(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per method, steps, budget, seed, state and metric, of members that nothing was trained on."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["epochs_finetune"]:
            continue
        recipe = next(recipe for kind, recipe in row["recipes"].items() if kind in ("update", "search"))
        steps = recipe.get("steps")
        if steps is None:
            continue
        for state, column in STATES.items():
            for metric in METRICS:
                if metric in row[column]:
                    key = (row["method"], steps, steps * recipe["batch_size"], row["budget_asked"], row["seed"], state)
                    names = ("method", "steps", "samples", "budget", "seed", "state")
                    value = row[column][metric]["value"]
                    found[*key, metric] = {**dict(zip(names, key, strict=True)), "metric": metric, "value": value}
    return [found[key] for key in sorted(found)]


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table per method, state and metric: steps x budgets."""
    cells: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        cells[row["method"], row["state"], row["metric"], row["steps"], row["samples"], row["budget"]].append(
            row["value"]
        )
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    lines: list[str] = []
    for method, state, metric in sorted({key[:3] for key in cells}):
        title = "top-1 (%)" if metric == "top1" else "KL to the dense network (nats)"
        heads = ["steps", "samples", *(f"{100 * budget:g} %" for budget in budgets)]
        lines += ["", f"**{method}, {state}: {title} on validation**", "", "| " + " | ".join(heads) + " |"]
        lines.append("|---" * len(heads) + "|")
        for steps, samples in sorted({key[3:5] for key in cells if key[:3] == (method, state, metric)}):
            texts = [_text(cells[method, state, metric, steps, samples, budget], metric) for budget in budgets]
            lines.append(f"| {steps:,} | {samples:,} | " + " | ".join(texts) + " |")
    return "\n".join(lines).lstrip() + "\n"


def _text(found: Sequence[float], metric: str) -> str:
    if not found:
        return ""
    digits = 1 if metric == "top1" else 4
    deviation = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.{digits}f}{deviation}"


def main(argv: Sequence[str] | None = None) -> None:
    """Read the sweeps of a store, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="stem of the two files")
    words = parser.parse_args(argv)
    store = Store(words.store)
    rows = collect(read_record(store, store.list_sweeps()).rows)
    if not rows:
        parser.error(f"{words.store}: it has no member of a search that was asked for by its steps; run one first")
    with words.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    words.out.with_suffix(".md").write_text(to_markdown(rows))


if __name__ == "__main__":
    main()
