"""Random orders and stratified splits that stay the same over processes, machines and numpy versions."""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def random_words(count: int, *entropy: int) -> npt.NDArray[np.uint64]:
    """`count` random 64-bit words that depend on `entropy` alone.

    The raw words of a bit generator are the part of numpy.random whose stream is promised never to change;
    what `Generator` makes of them may.
    """
    words: npt.NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return words


def permutation(count: int, *entropy: int) -> Indices:
    """A random order of 0 .. count - 1 that depends on `entropy` alone."""
    return np.argsort(random_words(count, *entropy), kind="stable").astype(np.int64)


def num_held_out(count: int, fraction: float) -> int:
    """How many of `count` samples `stratified_split` takes out."""
    return round(fraction * count)


def stratified_split(labels: npt.ArrayLike, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split positions in two so that every class keeps its share.

    The second part has round(fraction * N) positions; each class gives the floor of its share, and the
    classes with the largest remainders give one more (ties go to the first class).

    Args:
        labels: classes, shape (N,).
        fraction: share of the second part.
        seed: seed of the draw within each class.

    Returns:
        Two sorted arrays of positions: what remains, and what was taken out.

    Raises:
        ValueError: if either part would be empty.
    """
    classes, members = np.unique(np.asarray(labels), return_inverse=True)
    num_taken = num_held_out(len(members), fraction)
    if not 0 < num_taken < len(members):
        raise ValueError(
            f"data.val_fraction: {fraction} of {len(members)} samples leaves a part empty; allowed: a share "
            "that gives both parts at least one sample; use 0.1, or more samples"
        )
    shares = fraction * np.bincount(members)
    quotas = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(quotas - shares, kind="stable")
    quotas[by_remainder[: num_taken - quotas.sum()]] += 1
    taken = np.zeros(len(members), dtype=bool)
    for position in range(len(classes)):
        own = np.flatnonzero(members == position)
        taken[own[permutation(len(own), seed, position)[: quotas[position]]]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)
