"""spp gc: what nothing refers to any more, and its removal."""

import json
from collections import Counter
from pathlib import Path

from spp.cli.markup import escape
from spp.cli.sweeps import runners
from spp.cli.table import count, human_bytes, make_console, make_table
from spp.process import is_alive
from spp.schedule.queue import job_liveness
from spp.store.garbage import Garbage, find_garbage, remove
from spp.store.store import Store

_NOUNS = {"damaged": "damaged folder", "code": "code copy", "cache": "cache file"}
MAX_ROWS = 40
"""Things that are listed one by one; --json has them all."""


def gc(root: Path, *, yes: bool, as_json: bool) -> int:
    """List what can go and, with `yes`, remove it; exit code 1 if some of it could not be removed.

    Raises:
        ValueError: one line, if there is no store, or the plan of a sweep cannot be read.
    """
    if not root.is_dir():
        raise ValueError(f"paths.store: {str(root)!r} is no folder; allowed: a store; check the path")
    store = Store(root)
    alive = job_liveness()
    busy = [sweep for sweep in store.list_sweeps() if any(is_alive(one) is not False for one in runners(store, sweep))]
    found = find_garbage(store, alive=alive, is_busy=bool(busy))
    left = {one.path: problem for one in found if yes and (problem := remove(store, one, alive=alive))}
    num_removed = len(found) - len(left) if yes else 0
    if as_json:
        rows = [_row(root, one, left.get(one.path)) for one in found]
        num_bytes = sum(one.num_bytes for one in found)
        print(json.dumps({"found": rows, "bytes": num_bytes, "num_removed": num_removed, "busy": busy}, indent=1))
        return 1 if left else 0
    _print(root, found, left, yes=yes, num_removed=num_removed, busy=busy)
    return 1 if left else 0


def _row(root: Path, one: Garbage, problem: str | None) -> dict[str, str | int | None]:
    place = str(one.path.relative_to(root))
    return {"what": one.what, "path": place, "why": one.why, "bytes": one.num_bytes, "left": problem}


def _print(
    root: Path, found: list[Garbage], left: dict[Path, str], *, yes: bool, num_removed: int, busy: list[str]
) -> None:
    console = make_console()
    table = make_table("what", "where", "size>", "why")
    for one in found[:MAX_ROWS]:
        why = f"left: {left[one.path]}" if one.path in left else one.why
        table.add_row(one.what, escape(str(one.path.relative_to(root))), human_bytes(one.num_bytes), escape(why))
    if found:
        console.print(table)
    if len(found) > MAX_ROWS:
        console.print(f"... and {len(found) - MAX_ROWS:,} more; all of them: spp gc --json")
    if busy:
        console.print(f"code and caches stay while sweeps are carried out: {escape(', '.join(busy))}", soft_wrap=True)
    numbers = Counter(_NOUNS.get(one.what, one.what) for one in found)
    kinds = ", ".join(count(number, noun) for noun, number in numbers.items())
    size = human_bytes(sum(one.num_bytes for one in found if one.path not in left))
    if not found:
        console.print("nothing can go: a sweep refers to everything that is old enough")
    elif yes:
        console.print(f"{count(num_removed, 'thing')} removed, {size}")
    else:
        console.print(f"{kinds}: {size}; nothing was removed yet; remove it with: spp gc --yes")
