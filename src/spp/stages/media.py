"""What a stage shows in Weights & Biases beside its rows: the path and the members."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spp.dynamics.path import SolutionPath
from spp.record.wandb_mirror import Mirror

MOST_UNITS = 10_000
"""Rows that W&B takes in a table: of a larger path evenly spaced units are shown; path/num_units tells of how many."""

_UNIT_COLUMNS = ("pair", "kind", "unit", "entry_step", "final_gamma")
_MEASURINGS = ("val_before", "before", "val_repaired", "repaired", "val", "test")
"""Of which member, and on which split, as a measuring names them."""
_MEMBER_COLUMNS = ("budget_kind", "budget", "macs", "params", "metric", "unit", *_MEASURINGS)
_NUM_IMAGE_COLUMNS = 256
_ROW_HEIGHT = 12


def log_path(mirror: Mirror, path: SolutionPath) -> None:
    """Show a path: support of Gamma over the steps, entry of every unit as a picture and as a table."""
    mirror.log_curve("path/step", _support_rows(path))
    caption = "order of entry, one row per pair, its units sorted: dark early, light late, white never"
    mirror.log_image("path/entry", entry_image(path), caption)
    units = _unit_rows(path)
    shown = np.linspace(0, len(units) - 1, min(len(units), MOST_UNITS)).round().astype(int)
    mirror.log_table("path/units", _UNIT_COLUMNS, [units[index] for index in shown])
    mirror.log({"path/num_units": len(units), "path/num_units_in_table": len(shown)})


def log_members(mirror: Mirror, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Show what members a finished stage has made, or measured: cost and headline metric (None: not measured).

    All such tables have the same columns, so that W&B joins those of a group.
    """
    if "members" in summary and "budget" in config:
        members = [
            [config["budget"]["kind"], float(budget), member["macs"], member["params"], None, None]
            + [None] * len(_MEASURINGS)
            for budget, member in summary["members"].items()
        ]
    elif "metrics" in summary and "budget" in summary:
        budget, name = summary["budget"], summary["headline"]
        found = [summary["metrics"].get(when, {}).get(name) for when in _MEASURINGS]
        values = [None if metric is None else metric["value"] for metric in found]
        unit = summary["metrics"]["test"][name]["unit"]
        members = [[budget["kind"], budget["value"], summary["macs"], summary["params"], name, unit, *values]]
    else:
        return
    mirror.log_table("family", _MEMBER_COLUMNS, members)


def entry_image(path: SolutionPath) -> NDArray[np.uint8]:
    """Order of entry in greys, (12 * num_pairs, 256): from 0, the first unit of all, to 230, the last; 255 never."""
    times = np.unique(np.concatenate([entry.numpy() for entry in path.entry.values()]))
    last = max(1, np.isfinite(times).sum() - 1)
    lines = []
    for pair in path.pairs:
        entry = np.sort(path.entry[pair.name].numpy())
        spread = entry[np.linspace(0, len(entry) - 1, _NUM_IMAGE_COLUMNS).round().astype(int)]
        place = np.searchsorted(times, spread)
        lines.append(np.where(np.isfinite(spread), 230 * place / last, 255).clip(0, 255).astype(np.uint8))
    return np.repeat(np.stack(lines), _ROW_HEIGHT, axis=0)


def _support_rows(path: SolutionPath) -> list[dict[str, float]]:
    """Percent of each family's units in the support of Gamma, at each sampled step."""
    if path.trace is None:
        return []
    rows: list[dict[str, float]] = [{"path/step": int(step)} for step in path.trace.steps]
    for kind in dict.fromkeys(pair.kind for pair in path.pairs):
        gamma = torch.cat([path.trace.gamma[pair.name] for pair in path.pairs if pair.kind == kind], dim=1)
        for row, share in zip(rows, 100 * (gamma != 0).double().mean(dim=1), strict=True):
            row[f"path/support_{kind}"] = float(share)
    return rows


def _unit_rows(path: SolutionPath) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for pair in path.pairs:
        entry = path.entry[pair.name].tolist()
        gamma = [None] * pair.size if path.trace is None else path.trace.gamma[pair.name][-1].tolist()
        for unit, (time, weight) in enumerate(zip(entry, gamma, strict=True)):
            rows.append([pair.name, pair.kind, unit, time if np.isfinite(time) else None, weight])
    return rows
