"""spp doctor: what this machine and site have, and what is missing, with the remedy."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from spp.cli.checks import Finding, Verdict
from spp.cli.checks_machine import checkout, python_packages, store_folder, torch_devices, wandb_login
from spp.cli.checks_slurm import slurm_site
from spp.cli.markup import escape
from spp.cli.table import make_console

_MARKS = {Verdict.OK: "[green]ok[/]", Verdict.NOTE: "[yellow]note[/]", Verdict.MISSING: "[red]missing[/]"}


def doctor(root: Path, *, as_json: bool) -> int:
    """Print what was found; exit code 1 if the program cannot work here."""
    findings = list(examine(root))
    works = all(finding.verdict is not Verdict.MISSING for finding in findings)
    if as_json:
        print(json.dumps({"works": works, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        console = make_console()
        console.print(_table(findings))
        verdict = "spp works here" if works else "[red]spp cannot work here[/]: see what is missing"
        console.print(f"\n{verdict}", soft_wrap=True)
    return 0 if works else 1


def examine(root: Path) -> Iterator[Finding]:
    """All findings, machine first; takes a few seconds, most of them for loading torch."""
    yield from python_packages()
    yield from torch_devices()
    yield from store_folder(root)
    yield from checkout()
    yield from wandb_login()
    yield from slurm_site()


def _table(findings: list[Finding]) -> Table:
    """A row per finding under the name of its area; the remedy below it, where it has room."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(overflow=overflow)
    area = None
    for finding in findings:
        if finding.area != area:
            area = finding.area
            table.add_row(f"[bold]{escape(area)}[/]")
        table.add_row(f"  {_MARKS[finding.verdict]}", escape(finding.what), escape(finding.found))
        if finding.remedy:
            table.add_row("", "", f"[dim]→ {escape(finding.remedy)}[/]")
    return table
