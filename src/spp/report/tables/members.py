"""The members themselves, as the csv of the tables over them holds them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spp.record.rows import Row


def member_data(rows: Sequence[Row]) -> tuple[Mapping[str, Any], ...]:
    """The rows as they were recorded, one per member, but for the whole config, which lies in the stage's folder."""
    return tuple(_member(row) for row in rows)


def _member(row: Row) -> Mapping[str, Any]:
    kept = {name: value for name, value in row.items() if name != "config"}
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in kept.items()}
