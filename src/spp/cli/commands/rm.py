"""spp rm: forget a sweep; the stages that it has made stay until spp gc."""

import json
from pathlib import Path

from spp.cli.markup import escape
from spp.cli.sweeps import command, find_sweep, view_sweep
from spp.cli.table import make_console
from spp.store.garbage import remove_sweep
from spp.store.store import Store


def rm(root: Path, name: str, *, as_json: bool) -> int:
    """Remove a sweep that has ended.

    Raises:
        ValueError: one line, if there is no such sweep, or it is at work.
    """
    store = Store(root)
    sweep = find_sweep(root, name)
    view = view_sweep(store, sweep)
    if not view.settled and not view.abandoned:
        raise ValueError(
            f"SWEEP: {sweep} is at work; allowed: one that has ended; end it first: {command('cancel', sweep, root)}"
        )
    remove_sweep(store, sweep)
    if as_json:
        print(json.dumps({"sweep": sweep}, indent=1))
    else:
        make_console().print(
            f"[bold]{escape(sweep)}[/] is forgotten; what it has made stays until spp gc --yes", soft_wrap=True
        )
    return 0
