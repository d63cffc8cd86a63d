"""The order of training samples and the random numbers of each: functions of seed, epoch and position."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from spp.data.split import permutation, random_words


class Draw(NamedTuple):
    """One sample of an epoch."""

    position: int
    seed: int
    """Seed of its augmentation, below 2**32."""


class EpochSampler(DistributedSampler[Any]):
    """A random order of the data set per epoch, in which every sample may come several times in a row.

    With `num_repeats` > 1 it is the repeated augmentation of Hoffer et al. (2020) as DeiT's samplers.py and
    timm's RepeatAugSampler have it: every sample is repeated, devices take the copies in turn, and the epoch
    ends after as many samples as the data set has, that is after having seen a part of it. Unlike theirs, the
    order depends on `seed`, and the epoch is not cut to a multiple of 256.

    It is a DistributedSampler so that Lightning leaves it as it is. An epoch that nobody announces by
    `set_epoch` follows the one before. The first one is `first_epoch`, of which the first `num_done` samples of
    every device are left out: that is where an interrupted training goes on.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        seed: int,
        num_repeats: int = 1,
        num_replicas: int = 1,
        rank: int = 0,
        first_epoch: int = 0,
        num_done: int = 0,
    ) -> None:
        # Only the length of the first argument is ever used.
        super().__init__(range(num_samples), num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_samples = num_samples
        self.num_repeats = num_repeats
        self.epoch = self.first_epoch = first_epoch
        self.num_done = num_done

    def __len__(self) -> int:
        return self.num_samples // self.num_replicas

    def __iter__(self) -> Iterator[Draw]:
        order = np.repeat(permutation(self.num_samples, self.seed, self.epoch), self.num_repeats)
        seeds = random_words(len(order), self.seed, self.epoch, 1) >> np.uint64(32)
        num_done = self.num_done if self.epoch == self.first_epoch else 0
        mine = slice(self.rank + num_done * self.num_replicas, len(self) * self.num_replicas, self.num_replicas)
        self.epoch += 1
        yield from map(Draw, order[mine].tolist(), seeds[mine].tolist())


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Put the generators that image transforms draw from back to where they were before the block.

    They are the global ones of random, numpy and torch; in a loader without worker processes the training itself
    draws from them too.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def seed_transforms(seed: int) -> None:
    """Seed these generators; devices' own generators are left alone."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
