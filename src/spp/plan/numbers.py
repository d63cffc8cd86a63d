"""Sizes as people write them: 2.6G, 15.7M, 50 %, 0.3."""

import math
import re

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_PATTERN = re.compile(r"^\s*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*([kmgt%]?)\s*$", re.IGNORECASE)

FLOPS_SCALES = {"G": 1e9, "M": 1e6}
"""How many multiply-adds one of a unit is."""
_SMALLEST_IN_G = 1e8


def flops_unit(dense_macs: float) -> str:
    """In which unit multiply-adds are written, G or M, by those of the largest network that is shown."""
    return "M" if dense_macs < _SMALLEST_IN_G else "G"


def format_flops(macs: float, unit: str) -> str:
    """Multiply-adds in a unit of `FLOPS_SCALES`, as tables have them."""
    return f"{macs / FLOPS_SCALES[unit]:.4g}"


def parse_size(text: str | float, field: str) -> float:
    """Read a size: a fraction in (0, 1], a percentage, or an absolute number with an optional k, M, G or T.

    Raises:
        ValueError: if `text` is no such number; the line names `field`.
    """
    allowed = "a fraction in (0, 1] (0.3 or 30%) or an absolute size (2.6G, 15.7M)"
    match = _PATTERN.match(str(text)) if not isinstance(text, bool) else None
    if match is None:
        raise ValueError(f"{field}: {text!r} is not a size; allowed: {allowed}; write 0.5 or 2.6G")
    number, suffix = float(match[1]), match[2].lower()
    size = number / 100 if suffix == "%" else number * _SUFFIXES[suffix]
    is_fraction_above_one = 1 < size < (10 if suffix == "" else math.inf if suffix == "%" else 0)
    if not math.isfinite(size) or size <= 0 or is_fraction_above_one:
        raise ValueError(f"{field}: {text} is out of range; allowed: {allowed}; the dense model is 1; use 0.5")
    return size


def format_size(size: float) -> str:
    """Write a size so that it can be read back: fractions as they are, absolute numbers with k, M or G."""
    if size <= 1:
        return f"{size:g}"
    for suffix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= factor:
            return f"{size / factor:.4g}{suffix}"
    return f"{size:g}"
