"""spp watch: the state of a sweep while it goes on."""

from pathlib import Path

from spp.cli.follow import follow
from spp.cli.sweeps import find_sweep
from spp.store.store import Store


def watch(root: Path, sweep: str | None, *, interval_s: float, as_json: bool, html: Path | None = None) -> int:
    """Show a sweep until nothing of it can go on by itself; exit code 1 unless it is done."""
    store = Store(root)
    return 0 if follow(store, find_sweep(root, sweep), interval_s, as_json=as_json, html=html) else 1
