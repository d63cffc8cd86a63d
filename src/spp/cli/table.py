"""How times, resources, states and progress look in the tables and lines of the commands."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spp.cli.markup import escape
from spp.schedule.status import StageStatus, State
from spp.store.store import Progress

PLAIN_WIDTH = 240
"""Columns where no terminal tells: files and pipes shall get whole lines."""

STYLES = {
    State.DONE: "green",
    State.RUNNING: "blue",
    State.QUEUED: "",
    State.BLOCKED: "yellow",
    State.FAILED: "red",
    State.LOST: "red",
    State.CANCELLED: "yellow",
}


def make_console() -> Console:
    """A console for stdout that cuts nothing off where stdout is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def make_table(*names: str) -> Table:
    """A table without lines; a name that ends with `>` heads a column of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left")
    return table


def human_time(seconds: float | None) -> str:
    """A duration with its two largest units: `8 s`, `3 min 20 s`, `2 h 05 min`, `3 d 04 h`; `?` for None."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def human_bytes(number: float) -> str:
    """A size with three digits: `0 B`, `1.23 kB`, `45.6 MB`, `7.89 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB" if number < 1000 else f"{number:,.0f} TB"


def human_resources(resources: Mapping[str, Any], *, submitted: bool) -> str:
    """What a stage asks for, without what goes without saying, such as `2 x 4 GPU, 8 cpu, 480 min`.

    Args:
        resources: `ResourcesConfig.plain()`.
        submitted: whether SLURM reads it; otherwise only GPUs and processes matter.
    """
    num_nodes = (resources.get("num_nodes") or 1) if submitted else 1
    num_gpus = resources.get("gpus_per_node") or 0
    num_tasks = resources.get("tasks_per_node") or num_gpus or 1
    parts = []
    if num_gpus:
        parts.append(f"{num_gpus} GPU")
    elif num_tasks > 1:
        parts.append(f"{num_tasks} processes")
    elif num_nodes > 1:
        parts.append("1 process")
    if num_nodes > 1:
        parts[0] = f"{num_nodes} x {parts[0]}"
    if submitted:
        parts += _asked_of_site(resources)
    return ", ".join(parts)


def _asked_of_site(resources: Mapping[str, Any]) -> list[str]:
    parts = []
    if (resources.get("cpus_per_task") or 1) > 1:
        parts.append(f"{resources['cpus_per_task']} cpu")
    if resources.get("mem_gb"):
        parts.append(f"{resources['mem_gb']:g} GB")
    if resources.get("timeout_min"):
        parts.append(f"{resources['timeout_min']} min")
    return parts + [str(resources[name]) for name in ("partition", "qos", "constraint") if resources.get(name)]


def state_bar(counts: Mapping[str, int], width: int) -> Text:
    """A bar whose parts are the shares of the states, finished first; every state that occurs is visible."""
    order = (State.DONE, State.RUNNING, State.FAILED, State.LOST, State.CANCELLED, State.BLOCKED, State.QUEUED)
    present = [(state, counts[state.value]) for state in order if counts.get(state.value)]
    total = sum(number for _, number in present)
    bar = Text()
    cells = {state: max(1, round(number * width / total)) for state, number in present}
    while present and sum(cells.values()) != width:
        largest = max(cells, key=cells.__getitem__)
        cells[largest] += 1 if sum(cells.values()) < width else -1
    for state, _ in present:
        bar.append("━" * cells[state], style="bright_black" if state is State.QUEUED else STYLES[state])
    return bar


def progress_bar(progress: Progress | None, width: int) -> Text:
    """How far a running stage is within what it is at; empty where it has told nothing yet."""
    if progress is None or progress.total <= 0:
        return Text()
    num_full = round(width * min(1.0, progress.done / progress.total))
    return Text.assemble(("━" * num_full, "blue"), ("━" * (width - num_full), "bright_black"))


def title(kind: str, label: str) -> str:
    """`finetune (member 0.5)`; the label only where it says more than the kind."""
    return kind if label in ("", kind) else f"{kind} ({label})"


def title_of(stage: StageStatus) -> str:
    """`title` of a stage."""
    return title(stage.kind, stage.label)


def place_of(stage: StageStatus) -> str:
    """Where a stage runs or waits: `n3, job 12_3`."""
    return ", ".join(part for part in (stage.host or "", f"job {stage.job}" if stage.job else "") if part)


def progress_of(stage: StageStatus) -> str:
    """`3/40 epochs  loss 0.71` of a running stage; empty where it has told nothing yet."""
    progress = stage.progress
    return f"{progress.done:.0f}/{progress.total:.0f} {progress.unit}  {progress.message}".rstrip() if progress else ""


def last_line(text: str | None) -> str:
    """The line of a traceback that says what was wrong."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def styled(state: State) -> str:
    """The state's name in its colour, as markup."""
    return f"[{STYLES[state]}]{state.value}[/]" if STYLES[state] else state.value


def count(number: int, word: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number:,} {word}{'s' if number != 1 else ''}"


def quiet(text: str) -> str:
    """Escaped text in a dim style, as markup."""
    return f"[dim]{escape(text)}[/]" if text else ""
