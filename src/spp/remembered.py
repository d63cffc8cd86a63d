"""Small answers kept in a cache: JSON with the sha256 of its line below it, so that a flipped bit is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from spp.temporary import replacing


def write_remembered(file: Path, value: Any) -> None:
    """Keep `value`, which JSON must be able to hold; several processes may do so at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value)
    with replacing(file) as new:
        new.write_text(f"{line}\n{_digest(line)}\n")


def read_remembered(file: Path) -> Any:
    """What `write_remembered` wrote; None where there is no such file or it is not as it was written."""
    try:
        line, digest = file.read_text().splitlines()
        return json.loads(line) if digest == _digest(line) else None
    except (OSError, ValueError, RecursionError):
        return None


def _digest(line: str) -> str:
    return hashlib.sha256(f"{line}\n".encode()).hexdigest()
