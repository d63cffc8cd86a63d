"""A sweep while it goes on, as one static page with the look of the report: written anew every few seconds, it reloads
itself, and needs neither a server nor a script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spp.report.html.page import document, html_head
from spp.report.html.text import element, paragraphs, text
from spp.report.palette import BLUE, VERMILION
from spp.report.table import Table

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 340, 150, 46, 20, 10


@dataclass(frozen=True)
class Curve:
    """One line over the epochs of a stage; points are (epoch, value)."""

    title: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class LiveStage:
    """Curves of a stage, and what is known of it in words."""

    title: str
    note: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class LivePage:
    """What the page shows of a sweep.

    shares: state -> number of stages, in the order of the bar; tables: what the commands of the terminal show as well;
    results: tables of what is done; refresh_s: seconds until the page is written again, None once nothing changes.
    """

    title: str
    lead: str
    tiles: Mapping[str, str]
    shares: Mapping[str, int]
    tables: Sequence[Table]
    stages: Sequence[LiveStage]
    results: Sequence[Table]
    notes: Sequence[str]
    refresh_s: float | None


def live_page(page: LivePage) -> str:
    """The whole page as HTML: the same sweep in the same state gives the same page."""
    tiles = "".join(
        element("div", element("dt", text(name)) + element("dd", text(value))) for name, value in page.tiles.items()
    )
    head = element("h1", text(page.title)) + element("p", text(page.lead), cls="lead") + _bar(page.shares)
    sections = [(f"table-{place}", table.title, _table(table)) for place, table in enumerate(page.tables, 1)]
    sections.insert(1, ("curves", "Loss and headline metric", _curves(page.stages)))
    sections += [(f"result-{place}", table.title, _table(table)) for place, table in enumerate(page.results, 1)]
    links = "".join(element("li", element("a", text(title), href=f"#{name}")) for name, title, _ in sections)
    body = (
        element("header", head + element("dl", tiles, cls="tiles") + paragraphs(page.notes, cls="note"))
        + element("nav", element("ul", links), aria_label="Sections")
        + element(
            "main",
            "".join(
                element("section", element("h2", text(title)) + content, id=name) for name, title, content in sections
            ),
        )
    )
    return document(html_head(page.title, refresh_s=page.refresh_s), body, cls="live")


def _bar(shares: Mapping[str, int]) -> str:
    """The shares of the states as one bar, with their numbers below it."""
    present = {state: number for state, number in shares.items() if number}
    parts = "".join(
        element("span", "", cls=f"part {state}", style=f"flex-grow:{number}") for state, number in present.items()
    )
    words = ", ".join(f"{number:,} {state}" for state, number in present.items())
    return element("div", parts, cls="shares", role="img", aria_label=words) + element("p", text(words), cls="state")


def _table(table: Table) -> str:
    """A table whose rows stand in the order in which they were given."""
    if not table.rows:
        return element("p", "None.", cls="empty")
    heads = "".join(
        element("th", text(column.title), scope="col", cls="number" if column.is_number else None)
        for column in table.columns
    )
    rows = "".join(
        element(
            "tr",
            "".join(
                element("td", text(cell.text) + (element("sup", text(cell.marks)) if cell.marks else ""),
                        cls="number" if column.is_number else None)
                for cell, column in zip(row, table.columns, strict=True)
            ),
        )
        for row in table.rows
    )  # fmt: skip
    body = element("thead", element("tr", heads)) + element("tbody", rows)
    legend = element("div", paragraphs(table.legend), cls="legend") if table.legend else ""
    return element("div", element("div", element("table", body), cls="box", tabindex=0) + legend, cls="table")


def _curves(stages: Sequence[LiveStage]) -> str:
    if not stages:
        return element("p", "No stage has told a loss yet.", cls="empty")
    cards = []
    for stage in stages:
        colours = (BLUE, VERMILION)
        charts = "".join(_chart(curve, colours[place % 2]) for place, curve in enumerate(stage.curves))
        cards.append(
            element("article", element("h4", text(stage.title)) + element("p", text(stage.note), cls="state") + charts)
        )
    return element("div", "".join(cards), cls="cards")


def _chart(curve: Curve, colour: str) -> str:
    """A line in SVG, with the ends of its axes written out."""
    points = [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return _LEFT + across * (_WIDTH - _LEFT - 8), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    placed = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    drawn = f'<polyline class="line" points="{line}" stroke-width="1.6"/>'
    drawn += f'<circle cx="{placed[-1][0]:.1f}" cy="{placed[-1][1]:.1f}" r="2.6" fill="{colour}"/>'
    axis = f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 8}"/>'
    labels = [
        (_LEFT - 5, _TOP + 8, "end", f"{high:.4g}"),
        (_LEFT - 5, _HEIGHT - _BOTTOM, "end", f"{low:.4g}"),
        (_LEFT, _HEIGHT - 5, "start", f"{left:g}"),
        (_WIDTH - 8, _HEIGHT - 5, "end", f"epoch {right:g}"),
    ]
    words = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text(word)}</text>' for x, y, anchor, word in labels
    )
    title = f"{curve.title}: {ys[-1]:.4g}"
    box = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "width": "100%", "role": "img", "aria_label": title}
    svg = element("svg", axis + drawn + words, **box)
    return element("div", element("p", text(title), cls="state") + svg, cls="chart coloured", style=f"--own:{colour}")
