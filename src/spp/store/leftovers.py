"""What dead workers leave behind beside a DONE marker: claims, and what they were writing."""

import contextlib
from collections.abc import Iterable

from spp.store.atomic import is_temporary, remove_abandoned
from spp.store.claim import CLAIM_PREFIX, Liveness, holder_of
from spp.store.store import Store


def remove_leftovers(store: Store, kind: str, key: str, names: Iterable[str], alive: Liveness | None = None) -> None:
    """Remove what nobody needs any more from the folder of a stage that is done.

    Args:
        store: of the stage.
        kind: of the stage.
        key: of the stage.
        names: what is in its folder.
        alive: whether a claim's holder on another machine lives; what a living one has stays.
    """
    claims = [name for name in names if name.startswith(CLAIM_PREFIX)]
    if not claims and not any(map(is_temporary, names)):
        return
    folder = store.stage_dir(kind, key)
    # In a store that others have written, or that is read only, it stays, which does no harm.
    with contextlib.suppress(OSError):
        if holder_of(folder, claims, alive)[1]:
            return
        for name in claims:
            (folder / name).unlink(missing_ok=True)
        # No claim is left, so whoever was at it has lost it, or is gone.
        remove_abandoned(folder, after_seconds=0.0)
