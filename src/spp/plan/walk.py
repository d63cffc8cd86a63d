"""The shape of the walk: how the size falls with time, from dense to the smallest budget."""

import math


def walked_fraction(shape: str, time_share: float) -> float:
    """How much of the way from dense to the smallest budget is done after a share of the steps; both in [0, 1]."""
    t = min(1.0, max(0.0, time_share))
    if shape == "sine":
        return math.sin(math.pi * t / 2)
    if shape == "cubic":
        return 1 - (1 - t) ** 3
    if shape == "cosine":
        return (1 - math.cos(math.pi * t)) / 2
    return t


def time_share_at(shape: str, fraction: float) -> float:
    """The share of the steps after which a fraction of the way is done: the inverse of `walked_fraction`."""
    way = min(1.0, max(0.0, fraction))
    if shape == "sine":
        return 2 * math.asin(way) / math.pi
    if shape == "cubic":
        return 1 - math.cbrt(1 - way)
    if shape == "cosine":
        return math.acos(1 - 2 * way) / math.pi
    return way
