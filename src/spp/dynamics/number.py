"""Numbers as a user may give them: Python's, numpy's or a tensor's scalar."""

import numbers
from typing import Any


def real_number(field: str, value: Any, remedy: float) -> float:
    """`value` as a float.

    Raises:
        ValueError: if it is no real number (a bool is none); the message names `field` and `remedy`.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        given = type(value).__name__ if hasattr(value, "ndim") else repr(value)
        raise ValueError(f"{field}: {given} is not allowed: must be a number; use {field}={remedy:g}")
    return float(number)
