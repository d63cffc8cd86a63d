"""Tables of what `spp path show --json` prints, as rows of text with their head, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from spp.plan.numbers import flops_unit, format_flops

KINDS = {"qk": "query-key", "vo": "value", "mlp": "MLP"}
NO_MEMBERS = "No member of this path was measured, so nothing is said of what members reach."

Shown = Mapping[str, Any]


def basis_lines(shown: Shown) -> list[str]:
    """What every column of expected values rests on."""
    members = shown["members"]
    lines = [f"({number}) {one['metric']}: {one['label']}; {one['basis']}" for number, one in enumerate(members, 1)]
    return lines or [NO_MEMBERS]


def size_table(shown: Shown, sizes: Sequence[Shown]) -> list[tuple[str, ...]]:
    """Rows of text with their head: costs, the share of each kind of units that is kept, and what is expected."""
    kinds = [kind for kind in KINDS if any(layer["kind"] == kind for layer in shown["layers"])]
    unit = flops_unit(shown["dense"]["macs"])
    heads = ("FLOPs %", unit, "parameters", "units", *(f"{KINDS[kind]} %" for kind in kinds))
    expected = [f"{each['metric']} ({number})" for number, each in enumerate(shown["members"], 1)]
    rows = [(*heads, *expected)]
    for size in sizes:
        cells = (f"{100 * size['share']:.1f}", format_flops(size["macs"], unit), f"{size['params']:,}")
        kept = (f"{100 * kept_share(shown, size, kind):.0f}" for kind in kinds)
        rows.append((*cells, f"{size['num_units']:,}", *kept, *map(expected_text, size["expected"])))
    return rows


def expected_text(expected: Mapping[str, Any] | None) -> str:
    """A value with its deviation; empty outside of what was measured."""
    if expected is None:
        return ""
    deviation = expected["deviation"]
    return f"{expected['value']:.4g}" if deviation is None else f"{expected['value']:.4g} ± {deviation:.2g}"


def leaving_table(shown: Shown) -> list[tuple[str, ...]]:
    """Rows of text with their head, the layer that leaves first at the top."""
    rows: list[tuple[str, ...]] = [("layer", "units", "first at %", "half at %")]
    for layer in shown["layers"]:
        shares = (layer["first_gone"], layer["half_gone"])
        cells = ("never" if share is None else f"{100 * share:.0f}" for share in shares)
        rows.append((layer["name"], f"{layer['num_units']:,}", *cells))
    return rows


def width_table(shown: Shown, size: Shown) -> list[tuple[str, ...]]:
    """Rows of text with their head: what every layer keeps, in the network's order."""
    layers = {layer["name"]: layer for layer in shown["layers"]}
    rows: list[tuple[str, ...]] = [("layer", "keeps", "of", "heads")]
    for name, width in size["widths"].items():
        layer = layers[name]
        heads = str(layer["num_heads"]) if layer["kind"] != "mlp" else ""
        rows.append((name, f"{width:,}", f"{layer['num_units']:,}", heads))
    return rows


def kept_share(shown: Shown, size: Shown, kind: str) -> float:
    """Share of the units of a kind that a member keeps."""
    sizes = {layer["name"]: layer["num_units"] for layer in shown["layers"] if layer["kind"] == kind}
    share: float = sum(size["widths"][name] for name in sizes) / sum(sizes.values())
    return share
