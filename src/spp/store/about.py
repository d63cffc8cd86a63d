"""What people call a sweep and say about it: about.json in its folder."""

import getpass
import os
from typing import Any

from spp.plan.about import AboutConfig
from spp.store.atomic import read_json, write_json
from spp.store.sweeps import Sweeps

_FILE = "about.json"


def write_about(store: Sweeps, sweep: str, about: AboutConfig) -> None:
    """Write down what is said about a sweep; what is left out stays as it was said before."""
    told = {name: value for name, value in about.plain().items() if value}
    write_json(store.sweep_dir(sweep) / _FILE, {**read_about(store, sweep), "user": _user(), **told})


def read_about(store: Sweeps, sweep: str) -> dict[str, Any]:
    """name, tags, note and user of a sweep; None, or no tags, where nothing was said."""
    told = read_json(store.sweep_dir(sweep) / _FILE) or {}
    tags = told.get("tags")
    texts = {name: told[name] if isinstance(told.get(name), str) else None for name in ("name", "note", "user")}
    return {**texts, "tags": [str(tag) for tag in tags] if isinstance(tags, list) else []}


def named(store: Sweeps, name: str) -> str | None:
    """The newest sweep that people call `name`; None if there is none."""
    return next((sweep for sweep in store.list_sweeps() if read_about(store, sweep)["name"] == name), None)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
