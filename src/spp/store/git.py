"""What git says about the checkout that holds this package."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from spp.locations import CONF, PIPELINES

_PACKAGE = Path(__file__).resolve().parents[1]
_SECONDS = 5.0


def describe() -> dict[str, Any] | None:
    """Commit, dirty flag and diff hash; None if there is no checkout or no git."""
    try:
        if not _is_ours():
            return None
        commit = _run("rev-parse", "HEAD").decode().strip()
        changes = diff()
        # Only what is not tracked below the package: results beside it change nothing.
        dirty = bool(changes) or bool(_run("ls-files", "--others", "--exclude-standard"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {
        "commit": commit,
        "dirty": dirty,
        "diff_sha256": hashlib.sha256(changes).hexdigest() if changes else None,
    }


def diff() -> bytes:
    """What `git apply` needs to get from the commit to the tracked files of the package, conf and pipelines.

    Of nothing else: it goes into a store, which others may read.

    Raises OSError or subprocess.SubprocessError where there is no git.
    """
    return _run("diff", "--no-ext-diff", "--no-color", "--binary", "HEAD", "--", *_folders())


def tracked() -> set[Path] | None:
    """The files of the package, of conf and of pipelines that git knows; None where this is no checkout.

    Raises OSError or subprocess.SubprocessError where there is no git.
    """
    if not _is_ours():
        return None
    listed = _run("ls-files", "--full-name", "-z", "--", *_folders()).split(b"\0")
    return {_PACKAGE.parents[1] / os.fsdecode(name) for name in listed if name}


def untracked() -> list[str]:
    """Files of the package, of conf and of pipelines that git does not know, by their place in the checkout.

    Raises OSError or subprocess.SubprocessError where there is no git.
    """
    listed = _run("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", *_folders())
    return [name for name in listed.decode("utf-8", "surrogateescape").split("\0") if name]


def _folders() -> list[str]:
    return [str(folder) for folder in (_PACKAGE, CONF, PIPELINES)]


def _is_ours() -> bool:
    # A package installed into an environment inside of somebody's checkout is not part of that checkout.
    top = _run("rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape").strip()
    return Path(top) == _PACKAGE.parents[1]


def _run(*arguments: str) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Many workers may look at one checkout at once: none of them may lock its index.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(_PACKAGE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, env=environment).stdout
