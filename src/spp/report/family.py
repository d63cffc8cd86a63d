"""The family table: one row per budget, beside the dense model."""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

from spp.plan.numbers import format_size
from spp.record.rows import Row

LEGEND = (
    "FLOPs are multiply-adds of Linear, Conv and matmul for one image; `asked` is the budget, the rest was counted on "
    "the compact model. Top-1 is on the test set of {num_images} images, before and after finetuning{deviation}. "
    "`to dense` is the change of top-1 in points."
)
_HEAD = ("method", "asked", "params (M)", "FLOPs (G)", "of dense", "top-1 before", "top-1 after", "to dense")

Group = tuple[str, str, str, str, float]


def group_rows(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that differ by their seed alone, by (method, model, data, budget kind, budget)."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        preset = None if row["preset"] == "priced" else row["preset"]
        details = ", ".join(detail for detail in (preset, row["variant"]) if detail)
        method = f"{row['method']} ({details})" if details else row["method"]
        groups[method, row["model"], row["data"], row["budget_kind"], row["budget_asked"]].append(row)
    return dict(groups)


def family_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, one section for each model and data set; mean and deviation where seeds repeat."""
    groups = group_rows(rows)
    sections = []
    for model, data in dict.fromkeys((model, data) for _, model, data, _, _ in groups):
        here = {group: rows for group, rows in groups.items() if group[1:3] == (model, data)}
        sections.append(f"## {model} on {data}\n\n{_table(here)}\n\n{_legend(here)}")
    return "\n\n".join(sections) + "\n"


def family_csv(rows: Sequence[Row]) -> str:
    """The rows as they were recorded, one line per member."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(groups: dict[Group, list[Row]]) -> str:
    every = [row for rows in groups.values() for row in rows]
    dense = list({row["dense_key"]: row for row in every}.values())
    first = dense[0]
    lines = [_HEAD, tuple("---:" if column else "---" for column in range(len(_HEAD)))]
    dense_top1 = spread([row["dense_top1"] for row in dense])
    size = (f"{first['dense_params'] / 1e6:.4g}", f"{first['dense_macs'] / 1e9:.4g}")
    lines.append(("dense", "", *size, "100 %", "", dense_top1, ""))
    for (method, _, _, kind, budget), rows in groups.items():
        asked = f"{kind} {100 * budget:g} %" if budget <= 1 else f"{kind} {format_size(budget)}"
        lines.append(
            (
                method,
                asked,
                f"{mean(row['params'] for row in rows) / 1e6:.4g}",
                f"{mean(row['macs'] for row in rows) / 1e9:.4g}",
                f"{100 * mean(row['macs'] / row['dense_macs'] for row in rows):.1f} %",
                spread([row["top1_before"] for row in rows]),
                spread([row["top1"] for row in rows]),
                f"{mean(row['top1'] - row['dense_top1'] for row in rows):+.1f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _legend(groups: dict[Group, list[Row]]) -> str:
    every = [row for rows in groups.values() for row in rows]
    num_seeds = max(len(rows) for rows in groups.values())
    deviation = f"; mean and standard deviation over {num_seeds} seeds" if num_seeds > 1 else ""
    searches = {row["search_key"]: row for row in every}
    seconds = sum(row["search_seconds"] for row in searches.values())
    cost = f" {len(searches)} search{'es'[: 2 * (len(searches) > 1)]} with the walk, {seconds:.0f} s on "
    devices = ", ".join(sorted({row["device"] for row in every}))
    num_images = every[0]["num_test_images"]
    return LEGEND.format(num_images=num_images, deviation=deviation) + cost + devices + f", for {len(every)} members."


def spread(values: Sequence[float]) -> str:
    """The mean, and where there are several values their standard deviation."""
    return f"{mean(values):.1f}" if len(values) == 1 else f"{mean(values):.1f} ± {stdev(values):.1f}"
