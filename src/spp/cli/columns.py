"""Plain text in columns, as wide as they need, which a terminal may be narrower than."""

from collections.abc import Sequence


def in_columns(rows: Sequence[Sequence[str]], *, num_left: int = 1) -> list[str]:
    """Lines of rows of equal length; the first `num_left` columns are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place < num_left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
