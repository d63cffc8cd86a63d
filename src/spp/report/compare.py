"""The comparison: methods down, budgets across, mean and deviation over seeds, and what the searches cost."""

from collections.abc import Sequence

from spp.plan.numbers import format_size
from spp.record.rows import Row
from spp.report.family import group_rows, spread

LEGEND = (
    "Top-1 on the test set of {num_images} images{deviation}, before and after finetuning. A column is a budget in "
    "achieved {kind}: of all members the one farthest from its budget has {worst:.1f} % of the dense model less than "
    "asked. Epochs are those of search and walk, and of finetuning. The last columns are what searches and walks took "
    "on {devices}: their number over all seeds, seconds in all, seconds per member."
)


def compare_markdown(rows: Sequence[Row]) -> str:
    """One section for each model, data set and budget kind."""
    sections = []
    for place in dict.fromkeys(_place(row) for row in rows):
        here = [row for row in rows if _place(row) == place]
        model, data, kind = place
        title = f"## {model} on {data}, budgets in {kind}"
        sections.append(f"{title}\n\n{_table(here)}\n\n{_legend(here)}")
    return "\n\n".join(sections) + "\n"


def _place(row: Row) -> tuple[str, str, str]:
    return row["model"], row["data"], row["budget_kind"]


def _table(rows: Sequence[Row]) -> str:
    groups = group_rows(rows)
    budgets = sorted({row["budget_asked"] for row in rows}, reverse=True)
    names = [_name(budget) for budget in budgets]
    head = (
        "method",
        *(f"{name} after" for name in names),
        *(f"{name} before" for name in names),
        "epochs",
        "searches",
        "total (s)",
        "per member (s)",
    )
    lines = [head, tuple("---:" if column else "---" for column in range(len(head)))]
    dense = list({row["dense_key"]: row["dense_top1"] for row in rows}.values())
    lines.append(("dense", *[spread(dense)] * len(budgets), *[""] * len(budgets), "", "", "", ""))
    for method in dict.fromkeys(group[0] for group in groups):
        by_budget = {group[4]: found for group, found in groups.items() if group[0] == method}
        cells = [
            spread([row[column] for row in by_budget[budget]]) if budget in by_budget else "not run"
            for column in ("top1", "top1_before")
            for budget in budgets
        ]
        lines.append((method, *cells, *_cost([row for found in by_budget.values() for row in found])))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cost(rows: Sequence[Row]) -> tuple[str, str, str, str]:
    searches = {(row["search_key"], row["search_seconds"]) for row in rows}
    total = sum(seconds for _, seconds in searches)
    epochs = sorted({f"{row['epochs_search']} + {row['epochs_finetune']}" for row in rows})
    return ", ".join(epochs), str(len(searches)), f"{total:.0f}", f"{total / len(rows):.1f}"


def _legend(rows: Sequence[Row]) -> str:
    num_seeds = max(len(found) for found in group_rows(rows).values())
    kind = rows[0]["budget_kind"]
    return LEGEND.format(
        num_images=rows[0]["num_test_images"],
        deviation=f", mean ± standard deviation over {num_seeds} seeds" if num_seeds > 1 else "",
        kind=kind,
        worst=max((_missed(row) for row in rows), default=0.0),
        devices=", ".join(sorted({row["device"] for row in rows})),
    )


def _missed(row: Row) -> float:
    """Percent of the dense model by which a member stays below its budget; 0 for budgets in units."""
    if row["budget_kind"] == "units":
        return 0.0
    dense: float = row[f"dense_{row['budget_kind']}"]
    asked = row["budget_asked"] if row["budget_asked"] <= 1 else row["budget_asked"] / dense
    return 100 * float(abs(asked - row[row["budget_kind"]] / dense))


def _name(budget: float) -> str:
    return f"{100 * budget:g} %" if budget <= 1 else format_size(budget)
