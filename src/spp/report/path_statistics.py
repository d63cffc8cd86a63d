"""Statistics of a solution path for the tables; every file is read once, however many tables ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from spp.report.consistency import entry_times, share_that_stays, support_at
from spp.report.path_arrays import Array, read_path

SHARES = (0.7, 0.5, 0.3, 0.2)
"""Budgets at which supports are compared: shares of the FLOPs of all units."""


@dataclass(frozen=True)
class PathStatistics:
    """One path: times of entry in steps, inf if never, and kinds of the units, both (num_units,).

    supports: the best units, (num_units,) bool, by SHARES. stays: see `share_that_stays`.
    """

    num_steps: int
    times: Array
    kinds: Array
    supports: Mapping[float, Array]
    stays: float


@cache
def path_statistics(artifacts: Path) -> PathStatistics:
    """The statistics of the path in a stage's artifacts.

    Raises:
        ValueError: if there is none.
    """
    path = read_path(artifacts)
    gamma = np.concatenate([path.gamma[pair["name"]] for pair in path.pairs], axis=1)
    kinds = np.repeat([pair["kind"] for pair in path.pairs], [pair["size"] for pair in path.pairs])
    supports = {share: support_at(path, share) for share in SHARES}
    return PathStatistics(path.num_steps, entry_times(path), kinds, supports, share_that_stays(gamma))
