"""The DONE marker of a stage, and whether what it vouches for is still there.

`damage` looks at the marker and at the sizes of the artifacts, which is cheap enough for every time that a stage is
found done. `all_damage` reads every artifact. `verified` is for whoever is about to open one.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from spp.store.atomic import read_json, write_json
from spp.store.forms import is_manifest, is_number
from spp.store.manifest import RECORD, differences, has_hash

DONE = "DONE"
ARTIFACTS = "artifacts"
SUMMARY = "summary.json"
SET_ASIDE = "damaged-"
"""How the folders begin into which damaged files are moved."""

REMEDY = "spp verify --repair sets it aside, and the next spp run makes it again"

_log = logging.getLogger(__name__)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker in the folder of a stage; None if there is none, or none that is whole."""
    marker = read_json(folder / DONE)
    return marker if marker is not None and _is_marker(marker) else None


def marker_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The marker for what the record of a stage's artifacts says: it holds the hash of the summary instead of that."""
    marker = {name: value for name, value in record.items() if name != "summary"}
    return {**marker, "summary_sha256": summary_hash(record["summary"])}


def summary_hash(summary: Mapping[str, Any]) -> str:
    """sha256 of a summary, however its file is laid out."""
    return hashlib.sha256(json.dumps(summary).encode()).hexdigest()


def damage(folder: Path, marker: Mapping[str, Any] | None = None) -> str | None:
    """What is wrong with a stage that has a marker, by the marker and the sizes; None if all is well.

    Args:
        folder: of the stage.
        marker: what `read_marker` said, where that is known.
    """
    marker = read_marker(folder) if marker is None else marker
    if marker is None:
        return "its DONE is not whole"
    artifacts = os.path.join(folder, ARTIFACTS)
    for name, expected in marker["artifacts"].items():
        try:
            size = os.stat(os.path.join(artifacts, name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"artifact {name} is missing"
        if size != expected["size"]:
            return f"artifact {name} has {size} bytes instead of {expected['size']}"
    return None


def all_damage(folder: Path) -> list[str]:
    """What is wrong with the artifacts of a stage that has a marker, by their hashes; one line each."""
    marker = read_marker(folder)
    if marker is None:
        return ["its DONE is not whole"]
    return [f"artifact {problem}" for problem in differences(folder / ARTIFACTS, marker["artifacts"])]


def verified(file: Path) -> Path:
    """`file` itself, which is about to be opened: where it is an artifact of a stage, it is whole.

    Raises:
        ValueError: one line, if it is not what the stage has written.
    """
    folder = next((parent.parent for parent in file.parents if parent.name == ARTIFACTS), None)
    if folder is None or not (folder / DONE).exists():
        return file
    marker = read_marker(folder)
    name = file.relative_to(folder / ARTIFACTS).as_posix()
    problem = None if marker is not None else "its DONE is not whole"
    if marker is not None and name in marker["artifacts"]:
        problem = None if _is_same(file, marker["artifacts"][name]["sha256"]) else f"artifact {name} is damaged"
    if problem is not None:
        raise ValueError(
            f"{folder.parent.name} {folder.name}: {problem}; allowed: what the stage has written; {REMEDY}"
        )
    return file


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a stage; where its file is damaged, the copy beside the artifacts. None if there is neither.

    Raises:
        ValueError: one line, if both are damaged.
    """
    summary = read_json(folder / SUMMARY)
    expected = (read_marker(folder) or {}).get("summary_sha256")
    if summary is not None and expected in (None, summary_hash(summary)):
        return summary
    copy = (read_json(folder / ARTIFACTS / RECORD) or {}).get("summary")
    if isinstance(copy, dict) and expected in (None, summary_hash(copy)):
        return copy
    if not (folder / SUMMARY).exists():
        return None
    raise ValueError(
        f"{folder.parent.name} {folder.name}: summary.json is damaged; allowed: what the stage has written; {REMEDY}"
    )


def summary_damage(folder: Path) -> str | None:
    """What is wrong with the summary of a finished stage, be its copy whole or not; None if all is well."""
    summary = read_json(folder / SUMMARY)
    expected = (read_marker(folder) or {}).get("summary_sha256")
    return None if summary is not None and expected in (None, summary_hash(summary)) else "its summary.json is damaged"


def restore_summary(folder: Path) -> bool:
    """Write a damaged summary again from the copy beside the artifacts, if that is whole; to be called by whoever holds
    the claim of the stage. Returns whether it was written."""
    if summary_damage(folder) is None:
        return False
    try:
        summary = read_summary(folder)
    except ValueError:
        return False
    if summary is None:
        return False
    write_json(folder / SUMMARY, summary)
    return True


def set_aside(folder: Path, problem: str) -> Path:
    """Move what a stage has finished into a folder beside it, so that it counts as not done; to be called by whoever
    holds its claim. Returns that folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = next(path for n in range(1000) if not (path := folder / f"{SET_ASIDE}{stamp}-{n}").exists())
    aside.mkdir()
    # The marker goes first: nobody may take what is left for finished.
    for name in (DONE, ARTIFACTS, SUMMARY):
        if os.path.lexists(folder / name):
            os.rename(folder / name, aside / name)
    _log.warning("%s %s: %s; set aside as %s, it is made again", folder.parent.name, folder.name, problem, aside)
    return aside


def _is_marker(marker: Mapping[str, Any]) -> bool:
    seconds, code_hash = marker.get("seconds"), marker.get("code_hash")
    return (
        is_manifest(marker.get("artifacts"))
        and (seconds is None or is_number(seconds))
        and (code_hash is None or isinstance(code_hash, str))
    )


def _is_same(file: Path, sha256: str) -> bool:
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _has_hash(file, sha256, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _has_hash(file: Path, sha256: str, size: int, mtime_ns: int) -> bool:
    # Reports open a path several times, and members are large: as long as a file is not written again it is read once.
    return has_hash(file, sha256)
