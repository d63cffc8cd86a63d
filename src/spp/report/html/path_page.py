"""What `spp path show` says as one static page with the look of the report; it needs neither a server nor a script."""

from collections.abc import Mapping, Sequence
from typing import Any

from spp.plan.numbers import flops_unit, format_flops
from spp.report.html.page import document, html_head
from spp.report.html.text import element, paragraphs, text
from spp.report.palette import BLUE, ORANGE, PURPLE, VERMILION
from spp.report.path_tables import Shown, basis_lines, leaving_table, size_table, width_table

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 640, 260, 52, 12, 34, 12
_COLOURS = (BLUE, VERMILION, ORANGE, PURPLE)


def path_page(shown: Shown) -> str:
    """The whole page as HTML: the same path gives the same page.

    Args:
        shown: what `spp path show --json` prints.
    """
    dense = shown["dense"]
    unit = flops_unit(dense["macs"])
    tiles = {
        "method": shown["method"],
        shown["kind"]: shown["key"],
        f"FLOPs ({unit}, multiply-adds)": format_flops(dense["macs"], unit),
        "parameters": f"{dense['params']:,}",
        "units": f"{dense['num_units']:,}",
    }
    listed = "".join(element("div", element("dt", text(k)) + element("dd", text(v))) for k, v in tiles.items())
    sections = [
        ("expected", "What members reach", _charts(shown) + paragraphs(basis_lines(shown), cls="note")),
        ("sizes", "Sizes along the path", _table(size_table(shown, shown["sizes"]))),
        ("first", "What leaves first", _leaving(shown)),
        ("widths", "Share of every layer that is kept", _heat(shown)),
    ]
    if shown["chosen"] is not None:
        one = shown["chosen"]
        content = _table(size_table(shown, [one])) + _table(width_table(shown, one))
        sections.append(("chosen", "The member that was asked for", content))
    title = f"Path of {shown['method']}, {shown['kind']} {shown['key'][:8]}"
    links = "".join(element("li", element("a", text(name), href=f"#{place}")) for place, name, _ in sections)
    body = (
        element("header", element("h1", text(title)) + element("dl", listed, cls="tiles"))
        + element("nav", element("ul", links), aria_label="Sections")
        + element(
            "main",
            "".join(element("section", element("h2", text(name)) + inner, id=place) for place, name, inner in sections),
        )
    )
    return document(html_head(title), body)


def _table(rows: Sequence[Sequence[str]], styles: Mapping[tuple[int, int], str] | None = None) -> str:
    """Rows of text with their head; styles of cells by row and column."""
    heads = "".join(element("th", text(head), scope="col", style="padding:8px 12px") for head in rows[0])
    lines = "".join(
        element(
            "tr",
            "".join(
                element("td", text(cell), cls="number" if column else None, style=(styles or {}).get((line, column)))
                for column, cell in enumerate(row)
            ),
        )
        for line, row in enumerate(rows[1:])
    )
    table = element("table", element("thead", element("tr", heads)) + element("tbody", lines))
    return element("div", element("div", table, cls="box", tabindex=0), cls="table")


def _leaving(shown: Shown) -> str:
    words = "Share of the FLOPs of the largest member that lacks one unit of a layer, and half of its units or more."
    return element("p", words, cls="note") + _table(leaving_table(shown))


def _heat(shown: Shown) -> str:
    """Layers in the network's order over sizes; the darker, the more is kept."""
    sizes = {layer["name"]: layer["num_units"] for layer in shown["layers"]}
    members = shown["sizes"]
    rows = [("layer", *(f"{100 * member['share']:.0f} %" for member in members))]
    styles = {}
    for line, name in enumerate(members[0]["widths"] if members else ()):
        shares = [member["widths"][name] / sizes[name] for member in members]
        rows.append((name, *(f"{100 * share:.0f}" for share in shares)))
        for column, share in enumerate(shares, 1):
            styles[line, column] = f"background:color-mix(in srgb, {BLUE} {55 * share:.0f}%, transparent)"
    return element("p", "In percent of its units, by the share of the FLOPs.", cls="note") + _table(rows, styles)


def _charts(shown: Shown) -> str:
    """One chart for every metric, a line and its band for all members that were made alike."""
    metrics = dict.fromkeys(each["metric"] for each in shown["members"])
    numbered = list(enumerate(shown["members"]))
    return "".join(
        _chart(shown, metric, [each for each in numbered if each[1]["metric"] == metric]) for metric in metrics
    )


def _chart(shown: Shown, metric: str, members: Sequence[tuple[int, Mapping[str, Any]]]) -> str:
    values = [size["value"] for _, each in members for size in each["recorded"]]
    spreads = [size["deviation"] or 0.0 for _, each in members for size in each["recorded"]]
    low = min(value - spread for value, spread in zip(values, spreads, strict=True))
    high = max(value + spread for value, spread in zip(values, spreads, strict=True))

    def place(share: float, value: float) -> tuple[float, float]:
        up = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    drawn = f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
    legend = ""
    for number, each in members:
        colour = _COLOURS[number % len(_COLOURS)]
        drawn += _line(shown, number, each, place, colour)
        swatch = element("span", "", style=f"width:14px;height:3px;background:{colour}")
        legend += element("span", swatch + text(f"({number + 1}) {each['label']}"))
    labels = [
        (_LEFT - 6, _TOP + 8, "end", f"{high:.4g}"),
        (_LEFT - 6, _HEIGHT - _BOTTOM, "end", f"{low:.4g}"),
        *((place(share, low)[0], _HEIGHT - 16, "middle", f"{100 * share:.0f}") for share in (0, 0.25, 0.5, 0.75, 1)),
        (_WIDTH - _RIGHT, _HEIGHT - 2, "end", "FLOPs (% of dense)"),
    ]
    words = "".join(f'<text x="{x:.1f}" y="{y}" text-anchor="{to}">{text(word)}</text>' for x, y, to, word in labels)
    box = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "width": "100%", "role": "img", "aria_label": f"{metric} over size"}
    svg = element("svg", drawn + words, **box)
    title = element("h3", text(metric))
    return title + element("div", svg, cls="chart") + element("div", legend, cls="legend-row")


def _line(shown: Shown, number: int, each: Mapping[str, Any], place: Any, colour: str) -> str:
    """What is expected as a line, its deviation as a band, what was measured as points."""
    sizes = [size for size in shown["sizes"] if size["expected"][number] is not None]
    expected = [(size["share"], size["expected"][number]) for size in sizes]
    expected += [
        (size["share"], {"value": size["value"], "deviation": size["deviation"]}) for size in each["recorded"][:1]
    ]
    expected.sort(key=lambda one: one[0])
    band = [(share, one["value"] + sign * (one["deviation"] or 0)) for sign in (1, -1) for share, one in expected]
    half = len(expected)
    band = band[:half] + band[half:][::-1]

    def points(values: Sequence[tuple[float, float]]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*place(*value)) for value in values)

    line = points([(share, one["value"]) for share, one in expected])
    drawn = f'<polygon points="{points(band)}" fill="{colour}" opacity="0.15"/>'
    drawn += f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    for size in each["recorded"]:
        across, up = place(size["share"], size["value"])
        drawn += f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
    return drawn
