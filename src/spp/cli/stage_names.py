"""Stages by the beginning of their keys."""

from spp.plan.spec import StageRef
from spp.store.store import Store

_MAX_CANDIDATES = 6


def find_stage(store: Store, prefix: str) -> StageRef:
    """The stage whose key begins with `prefix`.

    Raises:
        ValueError: if there is none or more than one; names some of them.
    """
    found = store.find_stages(prefix)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"STAGE: {prefix!r} begins no key in {store.root}; allowed: the first letters of a key; see spp status, "
            "or check paths.store"
        )
    some = ", ".join(f"{stage.kind} {stage.key}" for stage in found[:_MAX_CANDIDATES])
    dots = ", ..." if len(found) > _MAX_CANDIDATES else ""
    raise ValueError(f"STAGE: {prefix!r} fits {len(found)} stages; allowed: one of {some}{dots}; give more letters")
