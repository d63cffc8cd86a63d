"""Tables of encoded images as the Hugging Face hub has them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

IMAGE_COLUMNS = ("image", "img")
"""Encoded images: bytes, or a struct with `bytes` and perhaps `path`."""
LABEL_COLUMNS = ("label", "labels")

ALLOWED = (
    f"one column of encoded images (bytes, or a struct with bytes) named {' or '.join(IMAGE_COLUMNS)} and one of "
    f"whole numbers named {' or '.join(LABEL_COLUMNS)}, or the only ones of their types"
)


class Columns(NamedTuple):
    """Names of the columns that are read."""

    image: str
    label: str


class ColumnsError(ValueError):
    """A table's columns are others, or more than one could be meant; the message says what it has, and the remedy."""


def find_columns(schema: Any, image: str | None = None, label: str | None = None) -> Columns:
    """The columns of images and of labels: those asked for, else by the usual names, else the only ones of their types.

    Args:
        schema: a pyarrow.Schema.
        image: the column of images that is asked for (data.image_column).
        label: the column of labels that is asked for (data.label_column).

    Raises:
        ColumnsError: if there is no such column, or more than one.
    """
    images = [field.name for field in schema if _holds_images(field.type)]
    labels = [field.name for field in schema if _holds_labels(field.type)]
    return Columns(
        _pick("image", image, IMAGE_COLUMNS, images, schema), _pick("label", label, LABEL_COLUMNS, labels, schema)
    )


def is_struct(schema: Any, column: str) -> bool:
    """Whether the images of a column are the field `bytes` of a struct."""
    import pyarrow as pa

    return bool(pa.types.is_struct(schema.field(column).type))


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    # A column in which every cell is empty has no type; the images are named where they are asked for.
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind))


def _pick(what: str, wanted: str | None, usual: Sequence[str], fitting: Sequence[str], schema: Any) -> str:
    names = usual if wanted is None else (wanted,)
    found = next((name for name in names if name in fitting), None)
    if found is not None:
        return found
    has = "the columns " + ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is not None:
        raise ColumnsError(f"has {has}, of which {wanted!r} is no {what}; allowed: {ALLOWED}; {_remedy(what, fitting)}")
    if len(fitting) == 1:
        return fitting[0]
    which = f"several could be the {what}: {', '.join(fitting)}" if fitting else f"none could be the {what}"
    raise ColumnsError(f"has {has}, of which {which}; allowed: {ALLOWED}; {_remedy(what, fitting)}")


def _remedy(what: str, fitting: Sequence[str]) -> str:
    return f"say data.{what}_column={fitting[0]}" if fitting else f"make a column {what}"
