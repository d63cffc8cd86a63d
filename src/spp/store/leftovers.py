"""What dead workers leave behind: claims, and what they were writing."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from spp.store.claim import CLAIM_PREFIX, Liveness, holder_of
from spp.store.garbage import CACHE, CODE
from spp.store.store import NOT_BESIDE_DONE, Store
from spp.temporary import is_temporary, remove, remove_abandoned, scan

RANKS_PREFIX = "ranks-"
"""How the files begin by which the processes of a stage meet."""

_FORGET_SECONDS = 24 * 3600.0
"""After so long a process of another machine no longer writes what it has begun to write."""


def remove_leftovers(store: Store, kind: str, key: str, names: Iterable[str], alive: Liveness | None = None) -> None:
    """Remove what nobody needs any more from the folder of a stage that is done.

    Args:
        store: of the stage.
        kind: of the stage.
        key: of the stage.
        names: what is in its folder.
        alive: whether a claim's holder on another machine lives; what a living one has stays.
    """
    left = [name for name in names if _is_left(name)]
    if not left:
        return
    folder = store.stage_dir(kind, key)
    # In a store that others have written, or that is read only, it stays, which does no harm.
    with contextlib.suppress(OSError):
        if holder_of(folder, left, alive)[1]:
            return
        # No claim is held, so whoever was at it has lost it, or is gone.
        for name in left:
            if not is_temporary(name):
                remove(folder / name)
        remove_abandoned(folder, after_seconds=0.0)


def remove_unfinished(store: Store, sweep: str) -> None:
    """Remove what dead processes were writing beside the stages: into a sweep, into the cache, among the copies of the
    code, and where the time of the file server is asked for."""
    root = store.root
    folders = [root / CODE, root / CACHE, *store.sweep_places(sweep)]
    folders += [Path(entry.path) for place in (CACHE, "stages") for entry in scan(root / place) if entry.is_dir()]
    for folder in folders:
        with contextlib.suppress(OSError):
            remove_abandoned(folder, after_seconds=_FORGET_SECONDS, is_alone=False)


def _is_left(name: str) -> bool:
    return is_temporary(name) or name in NOT_BESIDE_DONE or name.startswith((CLAIM_PREFIX, RANKS_PREFIX))
