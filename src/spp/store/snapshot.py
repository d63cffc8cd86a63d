"""The code as it was when a sweep was submitted: what waits in a queue does not see what changes meanwhile.

code/<hash>/spp/...          the package, with conf and pipelines inside as in a wheel
code/<hash>/snapshot.json    hash, git (as in provenance.json), untracked, time
code/<hash>/diff.patch       what git's HEAD lacks: both together give the tracked files again
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spp.locations import CONF, PIPELINES
from spp.store import git, trust
from spp.store.atomic import read_json, write_json
from spp.store.store import utc_now
from spp.temporary import temporary

FILE = "snapshot.json"

_PACKAGE = Path(__file__).resolve().parents[1]

_log = logging.getLogger(__name__)


def take(store_root: Path, trusted: str = "user") -> Path:
    """Copy the running package into the store; equal code has one copy, whoever takes it and how often.

    A process that runs from a snapshot has nothing to copy.

    Returns:
        The folder to put first into a worker's PYTHONPATH. A worker that is started with `python -m` needs
        PYTHONSAFEPATH=1 as well, or a folder `spp` where it starts would come first. It is to be started by
        `checked_command`.

    Raises:
        ValueError: one line, if the copy in the store is not to be trusted.
    """
    if running() is not None:
        return _PACKAGE.parent
    files = _read_package()
    digest = trust.hash_of(files)
    folder = Path(store_root, "code", digest).absolute()
    if folder.is_dir():
        return _trusted(folder, trusted)
    folder.parent.mkdir(parents=True, exist_ok=True)
    private = temporary(folder.parent)
    try:
        _write(private, files, digest)
        private.rename(folder)
    except OSError:
        # A rename never replaces a folder that is not empty: another process was first with the same code.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return _trusted(folder, trusted)


def checked_command(folder: Path, trusted: str, command: Sequence[str]) -> list[str]:
    """The argv that checks a snapshot and then becomes `command`, if there is one: nothing of it is imported before."""
    # Isolated, or Python itself would look for a sitecustomize in it.
    return [sys.executable, "-I", "-c", Path(trust.__file__).read_text(), str(folder), trusted, *command]


def environment_of(folder: Path) -> dict[str, str]:
    """What a process that runs a snapshot has in its environment."""
    before = os.environ.get("PYTHONPATH")
    return {
        # Neither the folder that the user stands in nor the one of the installed package may come before it.
        "PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder),
        "PYTHONSAFEPATH": "1",
        # What Python compiles lies beside its source, and no hash covers it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _trusted(folder: Path, trusted: str) -> Path:
    problem = trust.snapshot_problem(str(folder), trusted)
    if problem is not None:
        raise ValueError(problem)
    return folder


def running() -> dict[str, Any] | None:
    """The description (snapshot.json) of the snapshot that this process runs from; None if it runs from none."""
    return read_json(_PACKAGE.parent / FILE)


def _read_package() -> dict[str, bytes]:
    """Every file that a worker may read, by its place in the package.

    Of a checkout those that git knows: what else lies there may be anything, and a store is read by others.
    """
    known = _tracked()
    files: dict[str, bytes] = {}
    for place, folder in (("", _PACKAGE), ("conf", CONF), ("pipelines", PIPELINES)):
        for path in folder.rglob("*"):
            if path.is_file() and _belongs(path, folder, known):
                files[Path(place, path.relative_to(folder)).as_posix()] = path.read_bytes()
    return files


def _tracked() -> set[Path] | None:
    """The files of the checkout that git knows; None where there is no checkout. Says which others are left out."""
    try:
        known = git.tracked()
        # Choices of conf/ are composed before: no worker misses them.
        left_out = [name for name in git.untracked() if not name.startswith("conf/")] if known is not None else []
    except (OSError, subprocess.SubprocessError):
        return None
    if left_out:
        some = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        _log.warning("git does not know %s, so workers will not have it; say git add if they need it", some)
    return known


def _belongs(path: Path, folder: Path, known: set[Path] | None) -> bool:
    if known is not None:
        return path.resolve() in known
    return not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)


def _write(folder: Path, files: dict[str, bytes], digest: str) -> None:
    for name, content in files.items():
        copy = folder / "spp" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        # A snapshot never changes, and nobody else is to change it.
        copy.chmod(copy.stat().st_mode & ~0o022)
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        place.chmod(place.stat().st_mode & ~0o022)
    described = git.describe()
    if described is not None:
        (folder / "diff.patch").write_bytes(git.diff())
    untracked = [] if described is None else git.untracked()
    write_json(folder / FILE, {"hash": digest, "git": described, "untracked": untracked, "time": utc_now()})
