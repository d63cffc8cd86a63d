"""spp list: the sweeps of a store."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

from spp.cli.markup import escape
from spp.cli.results import result_of, result_text
from spp.cli.sweeps import SweepView, view_sweep
from spp.cli.table import human_bytes, make_console, make_table
from spp.plan.graph import Plan
from spp.schedule.status import State
from spp.store.about import read_about
from spp.store.garbage import size_of
from spp.store.store import Store

_NUM_THREADS = 16
_STYLES = {"done": "green", "running": "blue", "failed": "red", "cancelled": "yellow", "stopped": "yellow"}


def list_sweeps(root: Path, *, num_sweeps: int, tag: str | None, as_json: bool) -> int:
    """Print the newest sweeps, the newest first: name, tags, when, state, size and headline result.

    Args:
        root: folder of the store.
        num_sweeps: how many; 0 for all.
        tag: only those with this tag.
        as_json: print one JSON object.
    """
    store = Store(root)
    about = {sweep: read_about(store, sweep) for sweep in store.list_sweeps()}
    fitting = [sweep for sweep, told in about.items() if tag is None or tag in told["tags"]]
    shown = fitting[:num_sweeps] if num_sweeps else fitting
    plans = {sweep: store.read_plan(sweep) for sweep in about}
    uses = Counter(key for plan in plans.values() for key in plan.stages)
    sizes = _sizes(store, [plans[sweep] for sweep in shown])
    rows = [_row(store, sweep, plans[sweep], about[sweep], sizes, uses) for sweep in shown]
    if as_json:
        print(json.dumps({"sweeps": rows, "num_sweeps": len(fitting)}, indent=1))
        return 0
    console = make_console()
    if not rows:
        what = f"no sweep has the tag {tag}" if tag else "no sweep yet"
        console.print(f"{escape(what)} in {escape(str(root))}", soft_wrap=True)
        return 0
    console.print(_table(rows))
    if len(fitting) > len(rows):
        console.print(f"... and {len(fitting) - len(rows):,} older; all of them: spp list -n 0")
    return 0


def _row(
    store: Store, sweep: str, plan: Plan, about: Mapping[str, Any], sizes: Mapping[str, int], uses: Mapping[str, int]
) -> dict[str, Any]:
    view = view_sweep(store, sweep)
    points = view.status.points
    keys = list(plan.stages)
    return {
        "sweep": sweep,
        **{name: about[name] for name in ("name", "tags", "note", "user")},
        "time": (store.sweep_dir(sweep) / "points.json").stat().st_mtime,
        "state": view.word,
        "cluster": view.cluster,
        "num_points": len(points),
        "num_points_done": sum(point.state is State.DONE for point in points),
        "num_stages": len(keys),
        "num_stages_done": view.totals.get(State.DONE.value, 0),
        "bytes": sum(sizes[key] for key in keys),
        "bytes_of_its_own": sum(sizes[key] for key in keys if uses[key] == 1),
        "result": result_of(store, plan, _done_keys(view)),
    }


def _done_keys(view: SweepView) -> frozenset[str]:
    return frozenset(stage.key for stage in view.status.stages if stage.state is State.DONE)


def _sizes(store: Store, plans: Sequence[Plan]) -> dict[str, int]:
    """Bytes by key of the stages."""
    stages = {stage.key: stage for plan in plans for stage in plan.stages.values()}
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        sizes = pool.map(lambda stage: size_of(store.stage_dir(stage.kind, stage.key)), stages.values())
        return dict(zip(stages, sizes, strict=True))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = make_table("name", "sweep", "when", "state", "points>", "size>", "result", "tags and note")
    for row in rows:
        style = _STYLES.get(row["state"])
        said = "  ".join(part for part in (" ".join(f"#{tag}" for tag in row["tags"]), row["note"] or "") if part)
        table.add_row(
            escape(row["name"] or ""),
            escape(row["sweep"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["time"])),
            f"[{style}]{row['state']}[/]" if style else row["state"],
            f"{row['num_points_done']:,}/{row['num_points']:,}",
            human_bytes(row["bytes"]),
            escape(result_text(row["result"])),
            escape(said),
        )
    return table
