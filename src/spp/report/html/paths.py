"""What the heat map of a solution path is drawn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spp.record.record import PathSource
from spp.report.html.points import style_json
from spp.report.palette import UNIT_KIND_STYLES, Series
from spp.report.path_arrays import UNIT_KINDS, Array, PathArrays, read_path, support_share

Json = dict[str, Any]

NUM_COLUMNS = 200
"""At most so many columns per layer: enough for a screen, and the page stays small."""


def paths_data(sources: Sequence[PathSource]) -> tuple[list[Json], list[str]]:
    """One entry per search whose path can be read, and a line for each that cannot."""
    found, lost = [], []
    for source in sources:
        try:
            path = read_path(source.artifacts)
        except ValueError as error:
            lost.append(str(error))
            continue
        found.append({"label": _label(source), "num_steps": path.num_steps, "kinds": _kinds(path)})
    return found, lost


def _label(source: PathSource) -> str:
    series = Series(source.method, source.preset, source.variant or "")
    return f"{source.model} on {source.data}: {series.label}, seed {source.seed} ({source.key[:8]})"


def _kinds(path: PathArrays) -> list[Json]:
    return [
        {
            "title": UNIT_KINDS[kind],
            "style": style_json(UNIT_KIND_STYLES[kind]),
            "layers": [_layer(name, path.entry[name], path.num_steps) for name in path.of_kind(kind)],
            "support": [
                [int(step), round(float(share), 2)]
                for step, share in zip(path.steps, support_share(path, kind), strict=True)
            ],
        }
        for kind in UNIT_KINDS
        if path.of_kind(kind)
    ]


def _layer(name: str, entry: Array, num_steps: int) -> Json:
    """Units in the order of their entry. A column is one unit, or of a wide layer the median of several.

    `entry` is null where the unit, or half of the column's, never entered.
    """
    order = np.argsort(entry, kind="stable")
    num_columns = min(len(order), NUM_COLUMNS)
    edges = np.linspace(0, len(order), num_columns + 1).round().astype(int)
    middle = entry[order[(edges[:-1] + edges[1:]) // 2]]
    digits = 1 if num_steps < 1000 else 0
    columns = [round(float(step), digits) if np.isfinite(step) else None for step in middle]
    units = order.tolist() if num_columns == len(order) else None
    return {
        "name": name,
        "size": len(order),
        "entry": columns,
        "units": units,
        "num_entered": int(np.isfinite(entry).sum()),
    }
