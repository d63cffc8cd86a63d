"""How the differences of two stages look."""

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from spp.cli.markup import escape
from spp.cli.table import make_table
from spp.plan.compare import Difference


def difference_table(found: Sequence[Difference], left: str, right: str) -> Table:
    """A row per field, with its value in either stage and the kinds of stages that have it."""
    table = make_table("field", left, right, "of")
    for one in found:
        table.add_row(
            escape(one.field), *(escape(_text(value)) for value in (one.left, one.right)), ", ".join(one.stages)
        )
    return table


def difference_rows(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{"field": one.field, "left": one.left, "right": one.right, "stages": list(one.stages)} for one in found]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
