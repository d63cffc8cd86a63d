"""spp path show: what there is to choose from on a finished path."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp.cli.columns import in_columns
from spp.cli.sweeps import full_name
from spp.plan.numbers import flops_unit, format_flops, format_size
from spp.report.path_tables import basis_lines, leaving_table, size_table, width_table
from spp.store.store import Store
from spp.text import visible

if TYPE_CHECKING:
    from spp.deploy.path_view import Dish, PathView


def show_path(root: Path, source: str, wanted: tuple[str, float] | None, *, html: Path | None, as_json: bool) -> int:
    """Print the sizes along a path, what leaves first, and what was measured of its members."""
    store = Store(root)
    from spp.deploy.path_view import view_path

    plain = _plain(view_path(store, full_name(store, source), wanted))
    if html is not None:
        from spp.report.html.path_page import path_page
        from spp.store.atomic import write_text

        write_text(html, path_page(plain), durable=False)
    if as_json:
        print(json.dumps(plain, indent=1))
        return 0
    print("\n".join(_lines(plain, wanted)))
    if html is not None:
        print(f"page: {visible(str(html))}")
    return 0


def _plain(view: "PathView") -> dict[str, Any]:
    def dish(member: "Dish") -> dict[str, Any]:
        expected = [each.at(member.share) for each in view.treatments]
        return {
            "share": member.share,
            "macs": member.macs,
            "params": member.params,
            "num_units": member.num_units,
            "widths": dict(member.widths),
            "expected": [one and {"value": one.value, "deviation": one.deviation} for one in expected],
        }

    return {
        "kind": view.kind,
        "key": view.key,
        "method": view.method,
        "dense": {"macs": view.dense.macs, "params": view.dense.params, "num_units": view.dense.num_units},
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "num_units": layer.num_units,
                "num_heads": layer.num_heads,
                "first_gone": layer.first_gone,
                "half_gone": layer.half_gone,
            }
            for layer in view.layers
        ],
        "sizes": [dish(member) for member in view.dishes],
        "chosen": None if view.chosen is None else dish(view.chosen),
        "members": [
            {
                "label": each.label,
                "metric": each.metric.title,
                "better": each.metric.better,
                "basis": each.basis,
                "recorded": [
                    {
                        "share": size.share,
                        "value": size.value,
                        "deviation": size.deviation,
                        "num_seeds": size.num_seeds,
                        "count": size.count,
                    }
                    for size in each.sizes
                ],
            }
            for each in view.treatments
        ],
    }


def _lines(plain: Mapping[str, Any], wanted: tuple[str, float] | None) -> list[str]:
    dense = plain["dense"]
    unit = flops_unit(dense["macs"])
    flops = f"{format_flops(dense['macs'], unit)} {unit}"
    lines = [
        f"{plain['kind']} {plain['key']}, method {plain['method']}; the dense network has "
        f"{flops} multiply-adds, {dense['params']:,} parameters, {dense['num_units']:,} units",
        "",
        *in_columns(size_table(plain, plain["sizes"]), num_left=0),
        *basis_lines(plain),
        "",
        "what leaves first (share of the FLOPs of the largest member that lacks so much of a layer)",
        *in_columns(leaving_table(plain)),
    ]
    if plain["chosen"] is not None and wanted is not None:
        lines += ["", f"{wanted[0]} {format_size(wanted[1])}"]
        lines += in_columns(size_table(plain, [plain["chosen"]]), num_left=0)
        lines += ["", *in_columns(width_table(plain, plain["chosen"]))]
    return lines
