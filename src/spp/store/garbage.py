"""What nothing in a store refers to any more, and its removal.

Referred to is every stage of a plan of a sweep, with all its inputs. Nothing is taken for garbage that somebody works
on or has made within the last FRESH_SECONDS: a sweep that needs it may be about to be written down.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spp.store.atomic import read_json
from spp.store.claim import Liveness, holder_of
from spp.store.marker import SET_ASIDE
from spp.store.store import Store
from spp.temporary import scan, temporary

FRESH_SECONDS = 3600.0
CODE_SECONDS = 24 * 3600.0
"""How long a copy of the code is kept that no stage has run yet: jobs may wait for that long before they start."""

CACHE_SECONDS = 30 * 24 * 3600.0
"""How long a file of the cache is kept that nobody has touched."""

REPORTS, CODE, CACHE = "reports", "code", "cache"
_SHARED_REPORTS = ("all", "wandb")
_NUM_THREADS = 16


@dataclass(frozen=True)
class Garbage:
    """Something to remove: what it is (stage, damaged, report, cache or code), where, why it can go, its size."""

    what: str
    path: Path
    why: str
    num_bytes: int


def find_garbage(store: Store, *, alive: Liveness | None = None, is_busy: bool = False) -> list[Garbage]:
    """Everything that can go.

    Args:
        store: to look through.
        alive: whether a claim's holder on another machine lives.
        is_busy: somebody carries out a sweep: then code and caches stay, since it may need them.

    Raises:
        ValueError: if the plan of a sweep cannot be read: what it refers to is not known then.
    """
    referred, now = _referred(store), time.time()
    found = [*_stages(store, referred, alive, now), *_reports(store)]
    if not is_busy:
        found += [*_code(store, referred, now), *_cache(store, now)]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        sizes = pool.map(size_of, (path for _, path, _ in found))
        return [Garbage(what, path, why, size) for (what, path, why), size in zip(found, sizes, strict=True)]


def remove(store: Store, garbage: Garbage, *, alive: Liveness | None = None) -> str | None:
    """Remove one thing; why it was left after all, or None.

    Of a stage it is looked once more whether somebody works on it: it may have been taken up again.
    """
    path = garbage.path
    if garbage.what == "stage" and holder_of(path, os.listdir(path), alive)[1]:
        return "somebody has begun to work on it"
    try:
        # At once for everybody else: nobody shall find half of it.
        aside = temporary(path.parent)
        path.rename(aside)
    except OSError as error:
        return f"it cannot be removed ({error.strerror})"
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
    return "it could not be removed as a whole" if aside.exists() else None


def remove_sweep(store: Store, sweep: str) -> None:
    """Forget a sweep; what it has made stays. Raises OSError if its folder cannot be removed."""
    folder = store.sweep_dir(sweep)
    # Without it the sweep is gone for everybody, whatever becomes of the rest.
    (folder / "points.json").unlink()
    shutil.rmtree(folder)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    total = 0
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if not path.is_dir():
            return path.stat().st_size
        for folder, _, names in os.walk(path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_size
    return total


def _referred(store: Store) -> frozenset[tuple[str, str]]:
    return frozenset((s.kind, s.key) for sweep in store.list_sweeps() for s in store.read_plan(sweep).stages.values())


def _stages(
    store: Store, referred: frozenset[tuple[str, str]], alive: Liveness | None, now: float
) -> Iterator[tuple[str, Path, str]]:
    for ref in store.find_stages(""):
        folder = store.stage_dir(ref.kind, ref.key)
        names = os.listdir(folder)
        if holder_of(folder, names, alive)[1]:
            continue
        if (ref.kind, ref.key) not in referred:
            if now - folder.stat().st_mtime > FRESH_SECONDS:
                yield "stage", folder, "no sweep refers to it"
            continue
        for name in names:
            if name.startswith(SET_ASIDE):
                yield "damaged", folder / name, "it was damaged, and set aside"


def _reports(store: Store) -> Iterator[tuple[str, Path, str]]:
    known = {*store.list_sweeps(), *_SHARED_REPORTS}
    for entry in scan(store.root / REPORTS):
        if entry.is_dir() and entry.name not in known:
            yield "report", Path(entry.path), "its sweep is gone"


def _code(store: Store, referred: frozenset[tuple[str, str]], now: float) -> Iterator[tuple[str, Path, str]]:
    """Copies of the code that no stage has run, and that no job was given."""
    copies = [Path(entry.path) for entry in scan(store.root / CODE) if entry.is_dir()]
    if not copies:
        return
    ran = {str((read_json(store.stage_dir(*ref) / "provenance.json") or {}).get("snapshot")) for ref in referred}
    scripts = [script.read_text(errors="replace") for script in (store.root / "sweeps").glob("*/jobs/slurm/*/*.sh")]
    for copy in copies:
        is_given = copy.name in ran or any(copy.name in script for script in scripts)
        if not is_given and now - copy.stat().st_mtime > CODE_SECONDS:
            yield "code", copy, "no stage of a sweep has run it"


def _cache(store: Store, now: float) -> Iterator[tuple[str, Path, str]]:
    for entry in scan(store.root / CACHE):
        if now - _touched(Path(entry.path)) > CACHE_SECONDS:
            yield "cache", Path(entry.path), "nobody has touched it for 30 days"


def _touched(path: Path) -> float:
    """When a file, or the newest one below a folder, was last read or written."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return max(max(stat.st_mtime, stat.st_atime) for stat in stats)
