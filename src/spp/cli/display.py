"""What a person sees while stages run: a bar in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from spp.cli.markup import escape
from spp.cli.table import count, human_time, title
from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.schedule.events import Event, What
from spp.store.store import Store

REFRESH_SECONDS = 0.5
PLAIN_LINE_SECONDS = 5.0
PLAIN_LINE_SHARE = 0.05
"""Of the time that a stage has run: a line waits at least as long, so that the log of hours stays readable."""

_GLYPHS = {
    What.CACHED: "[green]=[/]",
    What.SUBMITTED: "[blue]^[/]",
    What.STARTED: "[blue]>[/]",
    What.WAITING: "[yellow]~[/]",
    What.DONE: "[green]+[/]",
    What.FAILED: "[red]x[/]",
    What.BLOCKED: "[yellow]-[/]",
}


class RunDisplay:
    """Follows the events of a scheduler and the progress files of the stages that run."""

    def __init__(self, plan: Plan, store: Store, console: Console) -> None:
        self.plan = plan
        self.store = store
        self.console = console
        self._running: dict[str, float] = {}
        self._bars_of: dict[str, TaskID] = {}
        self._last_line = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="display", daemon=True)
        self._bars = Progress(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}  {task.fields[message]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._bars.stop()

    def observe(self, event: Event) -> None:
        """Say in one line what happened to a stage."""
        key, detail = event.stage.key, event.detail
        if event.what is What.STARTED:
            self._running[key] = time.monotonic()
            self._last_line = time.monotonic()
        elif event.what is not What.WAITING:
            started = self._running.pop(key, None)
            if key in self._bars_of:
                self._bars.remove_task(self._bars_of.pop(key))
            if event.what is What.DONE:
                seconds = "" if started is None else human_time(time.monotonic() - started)
                detail = "  ".join(part for part in (seconds, self._outcome(event.stage)) if part)
        if event.what is What.BLOCKED:
            detail = f"needs {self.plan.stages[detail].kind} {detail[:8]}"
        what = f"{_GLYPHS[event.what]} {event.what.value:<8}"
        self.console.print(
            f"  {what} {escape(title(event.stage.kind, event.stage.label)):<28} {key[:8]}  {escape(detail)}".rstrip()
        )

    def _outcome(self, stage: Stage) -> str:
        summary = self.store.summary(stage.kind, stage.key)
        if "headline" in summary:
            return _headline(summary)
        if "support" in summary:
            return f"{100 * summary['support']['all']:.0f} % of {summary['num_units']} units entered"
        return count(len(summary["members"]), "member") if "members" in summary else ""

    def _follow(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            for key in list(self._running):
                self._show_progress(self.plan.stages[key])

    def _show_progress(self, stage: Stage) -> None:
        progress = self.store.read_progress(stage.kind, stage.key)
        if progress is None:
            return
        if self.console.is_terminal:
            if stage.key not in self._bars_of:
                self._bars_of[stage.key] = self._bars.add_task(escape(_title(stage)), total=1, unit="", message="")
            self._bars.update(
                self._bars_of[stage.key],
                completed=progress.done,
                total=progress.total,
                unit=progress.unit,
                message=escape(progress.message),
            )
            return
        now = time.monotonic()
        so_far = now - self._running.get(stage.key, now)
        if now - self._last_line >= max(PLAIN_LINE_SECONDS, PLAIN_LINE_SHARE * so_far):
            self._last_line = now
            share = f"{progress.done:.0f}/{progress.total:.0f} {progress.unit}  {progress.message}"
            self.console.print(f"    {escape(_title(stage)):<37} {escape(share)}")


def _headline(summary: Mapping[str, Any]) -> str:
    """The metric that a stage's network is judged by: on the test set where it was looked at, else on validation."""
    split, metrics = "test", summary.get("metrics", {}).get("test")
    if metrics is None:
        split, metrics = "validation", summary["val"]
    metric = metrics[summary["headline"]]
    return f"{split} {metric['label']} {metric['value']:.4g} {metric['unit']}"


def _title(stage: Stage) -> str:
    return title(stage.kind, stage.label)
