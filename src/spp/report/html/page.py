"""The report as one self-contained page: tables, an interactive plot, paths, pictures, and where it all came from."""

import base64
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spp.record.metrics import headline
from spp.record.record import MissingMember, Record
from spp.record.rows import Row
from spp.report.groups import by_task, by_workload, tasks_to_name
from spp.report.html.paths import paths_data
from spp.report.html.points import asked_text, plot_data
from spp.report.html.tables import table_html
from spp.report.html.text import copyable, element, json_for_script, paragraphs, text
from spp.report.palette import Series, method_order
from spp.report.published import Published, quality_name
from spp.report.table import Table

if TYPE_CHECKING:
    from spp.report.drawing import Drawing
    from spp.report.reports import Part

FOLDER = Path(__file__).parent
SCRIPTS = ("common.js", "chart.js", "plot.js", "pinned.js", "paths.js", "tables.js")
"""In this order they make up the page's one script."""
FIRST = ("family",)
"""Reports that stand before everything else where there is anything of them."""
MEASURED_COLUMNS = ("ours", "num_seeds", "key", "latency_ms")
"""Of tidy data: a value in one of them was measured here."""


def page(record: Record, published: Published, parts: "Sequence[Part]") -> str:
    """The whole page as HTML: the same record gives the same page.

    Nothing in it is loaded from elsewhere, and its own policy forbids the browser to try.
    """
    script = '(() => {\n"use strict";\n' + "\n".join((FOLDER / name).read_text() for name in SCRIPTS) + "})();\n"
    paths, lost = paths_data(record.paths)
    data = json_for_script({**plot_data(record.rows, published), "paths": paths})
    # In the order of the page, as a picture is shown where it first appears.
    parts = sorted(parts, key=lambda part: (not _was_run(part), part.report.name not in FIRST))
    made = {part.report.name: section for part, section in zip(parts, _report_sections(parts), strict=True)}
    run = [part.report.name for part in parts if _was_run(part)]
    sections = [
        *(made[name] for name in FIRST if name in run),
        ("plot", f"{_quality(record)} over size", _plot_section(record)),
        ("paths", "Solution paths", _paths_section(len(paths), lost)),
        *(made[name] for name in run if name not in FIRST),
        ("missing", "Not finished", _missing_section(record.missing)),
        *_folded([section for name, section in made.items() if name not in run]),
    ]
    body = (
        _head(record)
        + element(
            "nav", element("ul", "".join(_link(name, title) for name, title, _ in sections)), aria_label="Sections"
        )
        + element("main", "".join(_section(*section) for section in sections))
        + f'<script type="application/json" id="data">{data}</script><script>{script}</script>'
    )
    return document(html_head(_title(record), script), body)


def document(head: str, body: str, cls: str | None = None) -> str:
    """A whole page of a head and what its body holds."""
    return f'<!doctype html>\n<html lang="en">\n{head}\n{element("body", body, cls=cls)}\n</html>\n'


def html_head(title: str, script: str = "", refresh_s: float | None = None) -> str:
    """The head of a page with the common look, that may run `script` and nothing else.

    Args:
        title: of the page, as text.
        script: the one script; empty for none.
        refresh_s: seconds after which a browser loads the page again; None for never.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}'" if script else "'none'"
    again = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{max(1, round(refresh_s))}">'
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"{again}<title>{text(title)}</title><style>{(FOLDER / 'page.css').read_text()}</style></head>"
    )


def _title(record: Record) -> str:
    """Of the page: sweep, models and data, commit."""
    if not record.rows:
        return "Structured pruning: no member yet"
    workloads = ", ".join(one.title for one in by_workload(record.rows))
    commits = {row["git_commit"][:10] for row in record.rows if row["git_commit"]}
    sweeps = _listed({row["sweep"] for row in record.rows}, 1)
    return " · ".join([sweeps, workloads, _days(record.rows), *sorted(commits)[-1:]])


def _days(rows: Sequence[Row]) -> str:
    """From the first to the last day on which a member was measured."""
    days = sorted({row["measured_at"][:10] for row in rows if row.get("measured_at")})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "unknown"


def _was_run(part: "Part") -> bool:
    """Whether a report shows anything that was measured here."""
    return bool(part.drawings) or any(map(_is_measured, part.tables))


def _is_measured(table: Table) -> bool:
    return any(row.get(name) for row in table.data for name in MEASURED_COLUMNS)


def _folded(sections: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """One section for what was not run, each report of it folded."""
    if not sections:
        return []
    parts = (
        element("details", element("summary", text(title)) + content, id=name, cls="todo")
        for name, title, content in sections
    )
    return [("not-run", "Published, and not run here", "".join(parts))]


def _link(name: str, title: str) -> str:
    return element("li", element("a", text(title), href=f"#{name}"))


def _section(name: str, title: str, content: str) -> str:
    return element("section", element("h2", text(title)) + content, id=name)


def _head(record: Record) -> str:
    rows = record.rows
    seeds, devices, sweeps = ({row[name] for row in rows} for name in ("seed", "device", "sweep"))
    commits = {row["git_commit"][:10] for row in rows if row["git_commit"]}
    tiles = {
        "members": str(len(rows)),
        "searches": str(len({row["search_key"] for row in rows})),
        _noun(seeds, "seed"): _listed(seeds),
        _noun(devices, "device"): _listed(devices),
        _noun(sweeps, "sweep"): _listed(sweeps, 3),
        "measured": _days(rows),
        "source": record.source,
        _noun(commits, "commit"): _listed(commits),
    }
    listed = "".join(element("div", element("dt", name) + element("dd", text(value))) for name, value in tiles.items())
    return element(
        "header",
        element("h1", "Structured pruning of transformers") + _what(record) + element("dl", listed, cls="tiles"),
    )


def _quality(record: Record) -> str:
    """What the plot shows over size, in a word."""
    names = {quality_name(headline(rows)) for rows in by_task(record.rows).values()}
    return names.pop() if len(names) == 1 else "Metrics"


def _what(record: Record) -> str:
    if not record.rows:
        return element("p", "No member is finished yet.", cls="lead")
    methods = dict.fromkeys(one.method for one in sorted(map(Series.of, record.rows), key=method_order))
    tasks = tasks_to_name(record.rows)
    workloads = [" for ".join([one.title, *tasks[one.task]]) for one in by_workload(record.rows)]
    words = f"{_count(len(methods), 'method')} ({', '.join(methods)}) on {_count(len(workloads), 'model')}: "
    return element("p", text(words + ", ".join(workloads) + "."), cls="lead")


def _noun(values: Collection[object], noun: str) -> str:
    return noun if len(values) == 1 else f"{noun}s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(values: set[int] | set[str], num_shown: int = 6) -> str:
    """Values in order; of many the first and their number."""
    shown = ", ".join(map(str, sorted(values)[:num_shown]))
    return f"{shown}, … ({len(values)})" if len(values) > num_shown else shown or "none"


def _plot_section(record: Record) -> str:
    if not record.rows:
        return element("p", "There is nothing to draw: no member is finished yet.", cls="empty")
    samples = {headline(rows).sample for rows in by_task(record.rows).values()}
    words = (
        "One point per method and budget: the mean over seeds, with the standard deviation as a bar. FLOPs are "
        f"multiply-adds for one {' or '.join(sorted(samples))}. Hollow points are published numbers. Point at a marker "
        "for its numbers; click it, or press Enter on it, for where they came from."
    )
    return element("p", words, cls="note") + element("div", id="plot-app", cls="app")


def _paths_section(num_paths: int, lost: Sequence[str]) -> str:
    notes = paragraphs((f"Not shown: {line}" for line in lost), cls="note")
    if not num_paths:
        return (
            element("p", "No path is recorded: paths are left by finished searches of method spp.", cls="empty") + notes
        )
    words = (
        "When each unit entered the support of Gamma, by layer. Within a layer units stand in the order of their "
        "entry; those that never entered are grey."
    )
    return element("p", words, cls="note") + element("div", id="paths-app", cls="app") + notes


def _report_sections(parts: "Sequence[Part]") -> list[tuple[str, str, str]]:
    """One section per report; a drawing that several reports have is shown where it first appears."""
    from spp.report.drawing import tidy_csv

    places: dict[tuple[str, str], str] = {}
    sections = []
    for report, tables, drawings in parts:
        name = f"report-{report.name}"
        # What was run comes first; a table that only quotes stands folded below it.
        is_partial = any(map(_is_measured, tables))
        quoted = [table for table in tables if is_partial and not _is_measured(table)]
        shown = [table for table in tables if table not in quoted]
        content = "".join(_table(table, report.title, f"{name}-{number}") for number, table in enumerate(shown, 1))
        for drawing in drawings:
            identity = (drawing.title, tidy_csv(drawing.data))
            if identity in places:
                content += element(
                    "p", f"Figure: see {element('a', text(drawing.title), href='#' + places[identity])}."
                )
            else:
                places[identity] = f"figure-{len(places) + 1}"
                content += _figure(drawing, places[identity])
        content += "".join(
            element(
                "details",
                element("summary", f"Not run: {text(table.title)}") + _table(table, table.title, place),
                cls="todo",
            )
            for table, place in ((table, f"{name}-quoted-{number}") for number, table in enumerate(quoted, 1))
        )
        sections.append((name, report.title, content or element("p", "Nothing is recorded for it.", cls="empty")))
    return sections


def _table(table: Table, heading: str, name: str) -> str:
    """The block of a table below a heading, which is not said twice."""
    return table_html(table, name, is_titled=table.title != heading)


def _figure(drawing: "Drawing", name: str) -> str:
    from spp.report.drawing import picture

    source = "data:image/png;base64," + base64.b64encode(picture(drawing, "png")).decode()
    image = f'<img src="{source}" alt="{text(drawing.title)}">'
    caption = element("figcaption", element("strong", text(drawing.title)) + " " + text(drawing.caption))
    return element("figure", element("div", image, cls="picture", tabindex=0) + caption, id=name)


def _missing_section(missing: Sequence[MissingMember]) -> str:
    if not missing:
        return element("p", "All that was asked for is finished.", cls="empty")
    points: dict[tuple[str, str, str], list[MissingMember]] = {}
    for member in missing:
        points.setdefault((member.state, member.sweep, member.command), []).append(member)
    items = []
    for (state, sweep, command), members in points.items():
        first = members[0]
        budgets = ", ".join(dict.fromkeys(asked_text(member.budget_kind, member.budget_asked) for member in members))
        place = f"{first.model} on {first.data}, seed {first.seed}: {budgets} (sweep {sweep})"
        label = Series(first.method, first.preset, first.variant or "").label
        words = element("strong", text(label)) + f" {text(place)} " + element("span", text(state), cls="state")
        items.append(element("li", element("div", words) + copyable(command)))
    count = f"{_count(len(missing), 'member')} of {_count(len(points), 'point')}"
    failed = sum(member.state == "failed" for member in missing)
    summary = element("summary", f"{count}, {failed} failed" if failed else count)
    return element("details", summary + element("ul", "".join(items)), cls="todo", open="" if len(items) <= 5 else None)
