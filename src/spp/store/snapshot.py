"""The code as it was when a sweep was submitted: what waits in a queue does not see what changes meanwhile.

code/<hash>/spp/...          the package, with conf and pipelines inside as in a wheel
code/<hash>/snapshot.json    hash, git (as in provenance.json), untracked, time
code/<hash>/diff.patch       what git's HEAD lacks: both together give the tracked files again
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from spp.locations import CONF, PIPELINES
from spp.store import git
from spp.store.atomic import read_json, temporary, write_json
from spp.store.store import utc_now

FILE = "snapshot.json"

_PACKAGE = Path(__file__).resolve().parents[1]
_HASH_LENGTH = 16


def take(store_root: Path) -> Path:
    """Copy the running package into the store; equal code has one copy, whoever takes it and how often.

    A process that runs from a snapshot has nothing to copy.

    Returns:
        The folder to put first into a worker's PYTHONPATH. A worker that is started with `python -m` needs
        PYTHONSAFEPATH=1 as well, or a folder `spp` where it starts would come first.
    """
    if running() is not None:
        return _PACKAGE.parent
    files = _read_package()
    digest = _hash(files)
    folder = Path(store_root, "code", digest).absolute()
    if folder.is_dir():
        return folder
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
    return folder


def running() -> dict[str, Any] | None:
    """The description (snapshot.json) of the snapshot that this process runs from; None if it runs from none."""
    return read_json(_PACKAGE.parent / FILE)


def _read_package() -> dict[str, bytes]:
    """Every file that a worker may read, by its place in the package."""
    files: dict[str, bytes] = {}
    for place, folder in (("", _PACKAGE), ("conf", CONF), ("pipelines", PIPELINES)):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.relative_to(folder).parts:
                files[Path(place, path.relative_to(folder)).as_posix()] = path.read_bytes()
    return files


def _hash(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:_HASH_LENGTH]


def _write(folder: Path, files: dict[str, bytes], digest: str) -> None:
    for name, content in files.items():
        copy = folder / "spp" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    described = git.describe()
    if described is not None:
        (folder / "diff.patch").write_bytes(git.diff())
    untracked = [] if described is None else git.untracked()
    write_json(folder / FILE, {"hash": digest, "git": described, "untracked": untracked, "time": utc_now()})
