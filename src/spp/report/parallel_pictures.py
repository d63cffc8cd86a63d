"""Pictures of many drawings at a time, on all cores: Matplotlib takes up to a second for each."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from spp.report.drawing import Drawing, picture, rendered

MIN_DRAWINGS = 4
"""Below this number other processes are not worth their start."""

_shared: list[Drawing] = []
"""What the forked processes see; figures are too large to be sent."""


def make_pictures(drawings: Sequence[Drawing], formats: Sequence[str]) -> None:
    """Make what `spp.report.drawing.picture` will hand out; without fork and cores that makes them when asked."""
    num_processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(drawings))
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    if len(drawings) < MIN_DRAWINGS or num_processes < 2 or not can_fork or not formats:
        return
    by_figure = {drawing.figure: drawing for drawing in drawings}  # reports share pictures
    _shared[:] = by_figure.values()
    try:
        with ProcessPoolExecutor(num_processes, multiprocessing.get_context("fork")) as pool:
            made = list(pool.map(_pictures, range(len(by_figure)), [tuple(formats)] * len(by_figure)))
    finally:
        _shared.clear()
    for figure, pictures in zip(by_figure, made, strict=True):
        rendered.setdefault(figure, {}).update(pictures)


def _pictures(number: int, formats: Sequence[str]) -> dict[str, bytes]:
    return {suffix: picture(_shared[number], suffix) for suffix in formats}
