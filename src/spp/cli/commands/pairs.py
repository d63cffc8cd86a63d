"""spp pairs: what can be pruned in a network."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from spp.cli.columns import in_columns
from spp.plan.numbers import FLOPS_SCALES, flops_unit, format_size


def pairs(word: str, *, as_json: bool) -> int:
    """Show what was found, what it costs, and what is left alone and why."""
    from spp.deploy.named import open_network
    from spp.deploy.prunable import prunable

    found = prunable(open_network(word).network)
    rows = [
        {
            "name": pair.name,
            "kind": pair.kind,
            "num_units": pair.size,
            "num_heads": pair.num_heads,
            "params_per_unit": pair.params_per_unit,
            "macs_per_unit": pair.macs_per_unit,
        }
        for pair in found.pairs
    ]
    plain = {
        "macs": found.cost.macs,
        "params": found.cost.params,
        "unit_macs": found.unit_macs,
        "unit_params": found.unit_params,
        "pairs": rows,
        "left_alone": [asdict(each) for each in found.left_alone],
    }
    print(json.dumps(plain, indent=1) if as_json else "\n".join(_lines(plain)))
    return 0


def _lines(plain: Mapping[str, Any]) -> list[str]:
    heads = ("pair", "kind", "units", "heads", "parameters each", "multiply-adds each")
    rows = [
        (
            row["name"],
            row["kind"],
            str(row["num_units"]),
            str(row["num_heads"]),
            f"{row['params_per_unit']:,}",
            format_size(row["macs_per_unit"]),
        )
        for row in plain["pairs"]
    ]
    num_units = sum(row["num_units"] for row in plain["pairs"])
    lines = in_columns([heads, *rows], num_left=2)
    lines += ["", f"{len(rows)} pairs, {num_units:,} units"]
    unit = flops_unit(plain["macs"])
    for what, name, scale in (
        (f"multiply-adds ({unit})", "macs", FLOPS_SCALES[unit]),
        ("parameters (M)", "params", 1e6),
    ):
        of, whole = plain[f"unit_{name}"], plain[name]
        lines.append(f"{what}: {of / scale:.4g} of {whole / scale:.4g} are the units' ({100 * of / whole:.1f} %)")
    lines += ["", "left alone:"]
    alone = [("module", "class", "parameters", "why"), *_grouped(plain["left_alone"])]
    return lines + [f"  {line}" for line in in_columns([(*row[:2], row[3], row[2]) for row in alone], num_left=3)]


def _grouped(left_alone: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Modules that differ in the number of their block alone, as one line."""
    sums: dict[tuple[str, str, str], int] = {}
    for each in left_alone:
        name = re.sub(r"\.\d+\.", ".*.", each["module"])
        group = (name, each["kind"], each["reason"])
        sums[group] = sums.get(group, 0) + each["num_params"]
    return [(name, kind, f"{number:,}", reason) for (name, kind, reason), number in sums.items()]
