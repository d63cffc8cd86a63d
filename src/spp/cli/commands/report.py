"""spp report: tables, figures and a page from what was run, beside the paper's numbers."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spp.cli.report_names import FORMATS, REPORTS
from spp.cli.sweeps import find_sweep
from spp.plan.numbers import format_size
from spp.record.latencies import latency_rows
from spp.record.record import MissingMember, Record, read_record
from spp.report.files import PICTURES, Files
from spp.report.published import load_published
from spp.report.reports import REPORTS as MAKERS
from spp.report.reports import Drawings, Part, Report
from spp.report.table_text import to_markdown, to_terminal
from spp.store.benchmarks import read_benchmarks
from spp.store.store import Store
from spp.text import visible

if TYPE_CHECKING:
    from spp.report.drawing import Drawing

_MAX_NAMED = 10

PRINTED = ("family", "compare")
"""What `all` shows on the terminal, too; what is asked for by name always is."""


@dataclass(frozen=True)
class ReportRequest:
    """The user's words. where: a sweep of the store, or what `source` reads; None is all there is."""

    name: str
    where: str | None
    source: str
    only_format: str | None
    out: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """The reports asked for."""
        return REPORTS if self.name == "all" else (self.name,)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats asked for."""
        return FORMATS if self.only_format is None else (self.only_format,)

    @property
    def draws(self) -> bool:
        """Whether any of the formats has pictures."""
        return any(suffix in (*PICTURES, "html") for suffix in self.formats)


def report(root: Path, request: ReportRequest, *, as_json: bool = False) -> int:
    """Write what was asked for and say where; tables are also printed.

    Raises:
        ValueError: if the name, the sweep or the source is not there, or if there is nothing of what was asked by name.
    """
    if not set(request.names) <= set(REPORTS):
        raise ValueError(f"NAME: {request.name!r} is no report; allowed: {', '.join(REPORTS)}, all; take one of these")
    try:
        return _report(root, request, as_json=as_json)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(
            f"paths.store or --out: {error.filename} {error.strerror}; allowed: a whole store, a folder to write; "
            "check them"
        ) from None


def _report(root: Path, request: ReportRequest, *, as_json: bool) -> int:
    record, place = _read(root, request)
    folder = request.out or _folder(root) / place
    parts = [part for name in request.names if (part := _make(MAKERS[name], record, request)) is not None]
    parts = _with_drawings(parts, record, request) if request.draws else parts
    as_text = to_terminal if sys.stdout.isatty() and request.only_format != "md" else to_markdown
    for part in () if as_json else parts:
        if request.name != "all" or part.report.name in PRINTED:
            print("\n".join(as_text(table) for table in part.tables))
    files = Files(folder, request.formats, page_name="report" if request.name == "all" else request.name)
    written = files.write(parts, record, load_published())
    if as_json:
        print(
            json.dumps(
                {
                    "files": list(map(str, written)),
                    "num_members": len(record.rows),
                    "missing": list(map(asdict, record.missing)),
                },
                indent=1,
            )
        )
        return 0
    print("\n".join(map(visible, _by_stem(written))))
    for line in _not_there(record):
        print(f"spp: {visible(line)}", file=sys.stderr)
    return 0


def _by_stem(files: Iterable[Path]) -> list[str]:
    """The files, those that differ in their suffix alone on a line, as a shell understands it: table.{md,csv}."""
    suffixes: dict[Path, list[str]] = {}
    for file in files:
        suffixes.setdefault(file.with_suffix(""), []).append(file.suffix[1:])
    return [
        f"{stem}.{some[0]}" if len(some) == 1 else f"{stem}.{{{','.join(some)}}}" for stem, some in suffixes.items()
    ]


def _not_there(record: Record) -> list[str]:
    """What was asked for and is not in the report, a line for the members of a point in one state."""
    groups: dict[tuple[str, str, str], list[MissingMember]] = {}
    for member in record.missing:
        groups.setdefault((member.sweep, member.point, member.state), []).append(member)
    lines = []
    for (sweep, point, state), members in list(groups.items())[:_MAX_NAMED]:
        sizes = ", ".join(f"{format_size(member.budget_asked)} {member.budget_kind}" for member in members)
        lines.append(f"not there, {state}: {sizes} of {point} ({sweep}); again with: spp retry {sweep}")
    if len(groups) > _MAX_NAMED:
        lines.append(f"not there: members of {len(groups) - _MAX_NAMED} more points; all of them: --json")
    return lines


def _folder(root: Path) -> Path:
    """Where reports go: into the store, or beside where the user stands if that cannot be written."""
    inside = root / "reports"
    if os.access(inside if inside.exists() else root, os.W_OK):
        return inside
    print(f"spp: the store {root} cannot be written; the files go to ./reports (--out DIR)", file=sys.stderr)
    return Path("reports")


def _read(root: Path, request: ReportRequest) -> tuple[Record, str]:
    """The record, and what its folder of reports is called."""
    if request.source == "wandb":
        from spp.record.wandb_source import read_wandb

        where = request.where or ""
        return _with_latencies(read_wandb(where, root), root), Path(where).resolve().name if where else "wandb"
    store = Store(root)
    newest = find_sweep(root, request.where)  # also complains of a store without any
    # The oldest first: it is the one that the others are compared with.
    sweeps = store.list_sweeps()[::-1] if request.where is None else [newest]
    return _with_latencies(read_record(store, sweeps), root), "all" if request.where is None else newest


def _with_latencies(record: Record, root: Path) -> Record:
    return replace(record, latencies=latency_rows(read_benchmarks(root)))


def _make(report: Report, record: Record, request: ReportRequest) -> Part | None:
    """The tables of a report; under `all` what has nothing to show is said and left out."""
    try:
        return Part(report, report.tables(record, load_published()), ())
    except ValueError as error:
        if request.name != "all":
            raise
        print(f"spp: left out: {visible(str(error))}", file=sys.stderr)
        return None


def _with_drawings(parts: Sequence[Part], record: Record, request: ReportRequest) -> list[Part]:
    """The parts with their pictures; what several share is drawn once, and `all` does without what cannot be drawn."""
    drawn: dict[Drawings, list[Drawing]] = {}
    for draw in dict.fromkeys(draw for part in parts for draw in part.report.drawings):
        try:
            drawn[draw] = draw(record, load_published())
        except ValueError as error:
            if request.name != "all":
                raise
            drawn[draw] = []
            print(f"spp: a figure is left out: {visible(str(error))}", file=sys.stderr)
    return [
        part._replace(drawings=[drawing for draw in part.report.drawings for drawing in drawn[draw]]) for part in parts
    ]
