"""What `spp benchmark --keep` measured, a file for each run of it; no plan refers to them, and nothing removes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from spp.store.atomic import read_json, write_json
from spp.temporary import scan

FOLDER = "benchmarks"


def keep_benchmark(root: Path, measured: Mapping[str, Any]) -> Path:
    """Write down what was measured, with the time; returns the file."""
    now = datetime.now(UTC)
    file = root / FOLDER / f"{now:%Y%m%d-%H%M%S}-{token_hex(3)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**measured, "measured_at": now.isoformat(timespec="seconds")})
    return file


def read_benchmarks(root: Path) -> list[dict[str, Any]]:
    """What was kept, the oldest first; a file that is damaged is left out."""
    files = sorted(Path(entry.path) for entry in scan(root / FOLDER))
    found = (read_json(file) for file in files if file.suffix == ".json")
    return [measured for measured in found if measured is not None]
