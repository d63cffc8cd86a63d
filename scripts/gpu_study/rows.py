"""Rows of a study in a file of JSON lines: one that is there is not measured again."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows:
    """The rows of one part.

    Args:
        file: where they lie; what is there counts as done.
        common: what every row says, such as device and commit.
        ends_at: time.monotonic() at which nothing new is begun.
    """

    def __init__(self, file: Path, common: Mapping[str, Any], ends_at: float) -> None:
        self.file, self.common, self.ends_at = file, dict(common), ends_at
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def find(self, name: str) -> Row | None:
        """The row of a name."""
        return next((row for row in self.rows if row["name"] == name), None)

    def measure(self, name: str, what: Callable[[], Mapping[str, Any]]) -> Row | None:
        """The row of a name, measured now if it is not there; None if the time is over."""
        found = self.find(name)
        if found is not None:
            return found
        if time.monotonic() > self.ends_at:
            print(f"{name}: left out, the time is over", flush=True)
            return None
        began = time.perf_counter()
        row = {"name": name, **what(), "took_s": round(time.perf_counter() - began, 2), **self.common}
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        shown = {key: value for key, value in row.items() if key not in self.common and key != "name"}
        print(f"{name}: " + "  ".join(f"{key} {_short(value)}" for key, value in shown.items()), flush=True)
        return row


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
