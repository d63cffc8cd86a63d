"""The time by the clock of a store's file server, which stamps the files and may differ from this machine's."""

import time
from pathlib import Path

from spp.temporary import temporary

_REMEMBERED_SECONDS = 30.0

_known: dict[Path, tuple[float, float]] = {}
"""Folder -> the monotonic time at which its server was asked, and the server's time then."""


def server_time(folder: Path) -> float:
    """Seconds since 1970 by the clock that stamps the files in `folder`: the time of a file just written there.

    Where nothing can be written it is this machine's.
    """
    asked, told = _known.get(folder, (float("-inf"), 0.0))
    if time.monotonic() - asked > _REMEMBERED_SECONDS:
        told = _ask(folder)
        asked = time.monotonic()
        _known[folder] = asked, told
    # The monotonic clock, since this machine's own may be set meanwhile.
    return told + time.monotonic() - asked


def _ask(folder: Path) -> float:
    try:
        probe = temporary(folder)
        probe.touch()
    except OSError:
        return time.time()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
