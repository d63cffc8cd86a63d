"""The study's table from a store: python scripts/study_table.py STORE --out results/study/digits [--split test].

For every method and budget the headline metric and the KL divergence from the dense network: as cut, repaired, and
after each finetuning, with and without distillation, as mean and standard deviation over seeds. Writes OUT.csv
(one row per value), OUT.md and OUT.png.
"""

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spp.record.record import read_record
from spp.report.drawing import TEXT_WIDTH, Drawing, house_style, legend_below, new_figure, picture
from spp.report.palette import Series, method_order, styles
from spp.store.store import Store

TITLES = {
    "top1": "top-1 (%)",
    "accuracy": "accuracy (%)",
    "mean_recall": "mean recall (%)",
    "kl": "KL to the dense network (nats)",
}
"""The metrics that the tables have, as far as the record has them."""
CUT, REPAIRED = "cut", "repaired"
USUAL_SETTINGS = {"drive": "loss", "refine": None, "num_cuts": 1, "within": "score"}
"""Settings of methods that the studies vary, with their defaults."""


def values(row: Mapping[str, Any], split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The columns that a member has something for, and its metrics there."""
    prefix = "val_" if split == "val" else ""
    yield CUT, row[f"{prefix}metrics_before"]
    if row["repair"] != "none":
        yield REPAIRED, row[f"{prefix}metrics_repaired"]
    recipe = row["recipes"].get("finetune")
    if recipe and row["repair"] != "none":
        # The rest of a search that trains no weights goes to the finetuning: the column says the epochs of both. What a
        # refined path takes beyond the recipe's search is not in it.
        asked = next(found["epochs"] for kind, found in row["recipes"].items() if kind in ("update", "search"))
        total = min(row["epochs_search"], asked) + row["epochs_finetune"]
        distilled = ", distilled" if recipe["distill_weight"] else ""
        yield f"{total:g} epochs{distilled}", row[f"{prefix}metrics"]


def series_of(row: Mapping[str, Any]) -> str:
    """The method, and its settings where they are not the default ones."""
    found = ((name, row["method_config"].get(name, usual)) for name, usual in USUAL_SETTINGS.items())
    return " ".join([row["method"], *(f"{name}={value}" for name, value in found if value != USUAL_SETTINGS[name])])


def collect(store: Store, split: str) -> list[dict[str, Any]]:
    """One row per method, budget, seed, column and metric, each member once."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in read_record(store, store.list_sweeps()).rows:
        if any(recipe.get("steps") is not None for recipe in row["recipes"].values()):
            continue  # shorter searches are for scripts/search_steps.py
        for column, metrics in values(row, split):
            for metric in TITLES:
                if metric in metrics:
                    key = (series_of(row), row["budget_asked"], row["seed"], column, metric)
                    value = metrics[metric]["value"]
                    names = ("method", "budget", "seed", "when", "metric")
                    found.setdefault(key, {**dict(zip(names, key, strict=True)), "split": split, "value": value})
    return [found[key] for key in sorted(found, key=str)]


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table per metric and budget: methods x columns."""
    by_cell: dict[tuple[str, float, str, str], list[float]] = defaultdict(list)
    for row in rows:
        by_cell[row["metric"], row["budget"], row["method"], row["when"]].append(row["value"])
    columns, num_seeds = _columns(rows), len({row["seed"] for row in rows})
    lines = []
    for metric in _metrics(rows):
        for budget in sorted({row["budget"] for row in rows}, reverse=True):
            methods = sorted({row["method"] for row in rows if row["budget"] == budget})
            present = [name for name in columns if any(by_cell[metric, budget, one, name] for one in methods)]
            lines += [
                "",
                f"**{TITLES[metric]} at {100 * budget:g} % of the FLOPs**",
                "",
                "| method | " + " | ".join(present) + " |",
            ]
            lines.append("|---|" + "---|" * len(present))
            for one in methods:
                cells = [_text(by_cell[metric, budget, one, name], metric, num_seeds) for name in present]
                lines.append(f"| {one} | " + " | ".join(cells) + " |")
    return "\n".join(lines).lstrip() + "\n"


def _text(found: Sequence[float], metric: str, num_seeds: int) -> str:
    """Mean and deviation; with the number of seeds where that is not all of them."""
    if not found:
        return ""
    digits = 4 if metric == "kl" else 1
    deviation = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    few = f" ({len(found)})" if len(found) < num_seeds else ""
    return f"{statistics.mean(found):.{digits}f}{deviation}{few}"


@house_style()
def draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Metrics (rows of panels) over the budget at every column without distillation, mean over seeds; as png."""
    columns = [name for name in _columns(rows) if "distilled" not in name]
    series = {_series(row["method"]) for row in rows}
    looks = styles(sorted(series, key=method_order))
    figure = new_figure(1.3 * TEXT_WIDTH, 5.0)
    metrics = _metrics(rows)
    panels = figure.subplots(len(metrics), len(columns), squeeze=False, sharex=True)
    for axes in panels[-1][1:]:
        axes.sharey(panels[-1][0])
    entries: dict[str, Any] = {}
    for metric, line in zip(metrics, panels, strict=True):
        for axes, column in zip(line, columns, strict=True):
            for one, look in looks.items():
                found: dict[float, list[float]] = defaultdict(list)
                for row in rows:
                    if (row["metric"], row["when"]) == (metric, column) and _series(row["method"]) == one:
                        found[100 * row["budget"]].append(row["value"])
                if found:
                    sizes = sorted(found)
                    means = [statistics.mean(found[size]) for size in sizes]
                    (entries[one.label],) = axes.plot(sizes, means, **look.artist())
            if metric == "kl":
                axes.set(yscale="log", xlabel="FLOPs (%)")
                axes.yaxis.set_major_formatter("{x:.2g}")
                axes.yaxis.set_minor_formatter("")
            else:
                axes.set_title(column)
            axes.grid(axis="y", color="0.92", linewidth=0.6)
        line[0].set_ylabel("KL to dense (nats)" if metric == "kl" else TITLES[metric])
    legend_below(figure, entries)
    return picture(Drawing("study", "study", figure, "", ()), "png")


def _series(name: str) -> Series:
    method, _, variant = name.partition(" ")
    return Series(method, None, variant)


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    present = {row["metric"] for row in rows}
    return [name for name in TITLES if name in present]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["when"] for row in rows}, key=lambda name: (name not in (CUT, REPAIRED), len(name), name))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="stem of the three files")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    words = parser.parse_args(argv)
    rows = collect(Store(words.store), words.split)
    if not rows:
        parser.error(f"store: {str(words.store)!r} has no finished member with one of {', '.join(TITLES)}")
    with words.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    words.out.with_suffix(".md").write_text(to_markdown(rows))
    words.out.with_suffix(".png").write_bytes(draw(rows))


if __name__ == "__main__":
    main()
