"""How consistent paths are: over time, once in, does a unit stay; between seeds, are order and support the same."""

from collections.abc import Iterable

import numpy as np

from spp.report.path_arrays import Array, PathArrays

_SMALL = 64
"""Below this length every pair is compared, which is quicker than to divide further."""


def kendall_tau(a: Array, b: Array) -> float:
    """Kendall's tau-b of two lists of times of entry, (num_units,) each; inf (never) is a tie of all that have it.

    1: the same order; 0: no more alike than chance; -1: reversed. NaN where a list has but one value. O(n log n).

    Raises:
        ValueError: if the lists differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"b: {len(b)} units are not as many as a has; allowed: {len(a)}; compare paths of one model")
    order = np.lexsort((b, a))
    ranks_a, ranks_b = (np.unique(values, return_inverse=True)[1][order] for values in (a, b))
    num_pairs = len(a) * (len(a) - 1) / 2
    untied_a, untied_b = (num_pairs - _num_ties(ranks) for ranks in (ranks_a, ranks_b))
    if not untied_a or not untied_b:
        return float("nan")
    # Sorted by a, then b, pairs that tie in a are in order of b, so that every inversion is a discordant pair.
    num_discordant = _num_inversions(ranks_b)
    num_tied_in_both = _num_ties(ranks_a * (len(a) + 1) + ranks_b)
    num_concordant = untied_a + untied_b - num_pairs + num_tied_in_both - num_discordant
    return float((num_concordant - num_discordant) / np.sqrt(untied_a * untied_b))


def _num_ties(values: Array) -> float:
    counts = np.unique(values, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1)).sum() / 2)


def _num_inversions(values: Array) -> int:
    """Pairs of which the left is greater than the right."""
    if len(values) <= _SMALL:
        return int(np.triu(values[:, None] > values[None, :]).sum())
    left, right = values[: len(values) // 2], values[len(values) // 2 :]
    across = len(left) * len(right) - int(np.searchsorted(np.sort(left), right, side="right").sum())
    return _num_inversions(left) + _num_inversions(right) + across


def support_overlap(a: Array, b: Array) -> float:
    """Intersection over union of two supports, (num_units,) bool each; 1: the same units. NaN where both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else float("nan")


def chance_overlap(a: Array, b: Array) -> float:
    """What `support_overlap` comes to where the units are drawn by chance, as many as the two supports have.

    Of the mean size of the intersection; the mean of the ratio differs from it by less than a percent from some
    hundred units on.
    """
    both = float(a.sum()) * float(b.sum()) / len(a)
    union = float(a.sum()) + float(b.sum()) - both
    return both / union if union else float("nan")


def share_that_stays(gamma: Array) -> float:
    """Consistency over time: of the units that are ever in the support, the share that, once in, never leaves it.

    gamma: (num_samples, num_units), sampled along the path. NaN where no unit ever enters.
    """
    inside = gamma != 0
    entered = inside.any(axis=0)
    leaves = (inside[:-1] & ~inside[1:]).any(axis=0)
    return float((entered & ~leaves).sum() / entered.sum()) if entered.any() else float("nan")


def entry_times(path: PathArrays) -> Array:
    """Steps until entry of all units, (num_units,), inf if never; units are numbered pair after pair."""
    return np.concatenate([path.entry[pair["name"]] for pair in path.pairs])


def unit_order(path: PathArrays) -> Array:
    """All units as unit numbers, best first, (num_units,): that of spp.SolutionPath.order(min_units=0), or as refined.

    By time of entry, extended past the end by V for units that never entered; one list where the dynamics had the
    costs (preset priced), else equal shares of attention and MLP units.
    """
    if path.rank is not None:
        return np.argsort(np.concatenate([path.rank[pair["name"]] for pair in path.pairs]))
    value = np.concatenate([path.V[pair["name"]] for pair in path.pairs])
    if path.meta["preset"] == "textbook":  # its support has both signs
        value = np.abs(value)
    entry, lam = entry_times(path), path.meta["hyper"]["lam"]
    time = np.where(np.isinf(entry), path.num_steps * (1 + (lam - value) / lam), entry)
    is_global = path.meta["preset"] == "priced"
    if is_global and not path.meta["costs_in_dynamics"]:
        costs = unit_costs(path, "macs")
        time = time * costs / costs.mean()
    order = np.lexsort((-value, time))
    if is_global:
        return order
    is_mlp = np.repeat([pair["kind"] == "mlp" for pair in path.pairs], [pair["size"] for pair in path.pairs])[order]
    rank = np.where(is_mlp, np.cumsum(is_mlp), np.cumsum(~is_mlp))
    share = rank / np.where(is_mlp, max(is_mlp.sum(), 1), max((~is_mlp).sum(), 1))
    return order[np.lexsort((is_mlp, share))]


def unit_costs(path: PathArrays, kind: str) -> Array:
    """Cost of every unit beside all others in `kind`, macs or params, (num_units,)."""
    return np.repeat([float(pair[f"{kind}_per_unit"]) for pair in path.pairs], [pair["size"] for pair in path.pairs])


def support_at(path: PathArrays, share: float, kind: str = "macs") -> Array:
    """The best units of a path that `share` of what all units cost in `kind` pays for, (num_units,) bool."""
    order, costs = unit_order(path), unit_costs(path, kind)
    inside = np.zeros(len(order), dtype=bool)
    inside[order[np.cumsum(costs[order]) <= share * costs.sum() * (1 + 1e-9)]] = True
    return inside


def pairs_of_seeds(seeds: Iterable[int]) -> list[tuple[int, int]]:
    """All pairs of different seeds, each once, in ascending order."""
    ordered = sorted(set(seeds))
    return [(a, b) for index, a in enumerate(ordered) for b in ordered[index + 1 :]]
