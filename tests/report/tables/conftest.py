"""Tables as rows by the titles of their columns."""

from collections.abc import Callable
from typing import Any

import pytest

from spp.report.table import Table


@pytest.fixture(scope="session")
def texts_of() -> Callable[[Table], list[dict[str, str]]]:
    """The texts of a table's rows by the titles of its columns."""

    def texts(table: Any) -> list[dict[str, str]]:
        head = [column.title for column in table.columns]
        return [dict(zip(head, (cell.text for cell in row), strict=True)) for row in table.rows]

    return texts
