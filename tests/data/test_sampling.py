import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler

from spp.data.sampling import EpochSampler, own_random_numbers, seed_transforms


def positions(sampler):
    return [draw.position for draw in sampler]


def test_an_epoch_is_a_permutation_and_epochs_differ():
    sampler = EpochSampler(50, seed=0)
    first, second = positions(sampler), positions(sampler)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_an_announced_epoch_is_the_one_that_followed_unannounced():
    running, resumed = EpochSampler(50, seed=3), EpochSampler(50, seed=3)
    epochs = [list(running) for _ in range(3)]
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2]


@given(
    st.integers(1, 60), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.integers(0, 80), st.integers(0, 9)
)
def test_an_interrupted_epoch_goes_on_where_it_was(num_samples, num_repeats, num_replicas, epoch, num_done, seed):
    """Against the tail of an undisturbed one; the epochs that follow are whole."""
    shape = {"seed": seed, "num_repeats": num_repeats, "num_replicas": num_replicas, "rank": num_replicas - 1}
    undisturbed = EpochSampler(num_samples, **shape)
    epochs = [list(undisturbed) for _ in range(epoch + 2)]
    resumed = EpochSampler(num_samples, **shape, first_epoch=epoch, num_done=num_done)
    assert list(resumed) == epochs[epoch][num_done:]
    assert list(resumed) == epochs[epoch + 1]
    assert len(resumed) == len(undisturbed)


def test_order_depends_on_the_seed():
    assert positions(EpochSampler(50, seed=0)) != positions(EpochSampler(50, seed=1))


def test_devices_share_the_epoch():
    shares = [positions(EpochSampler(51, seed=0, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [25, 25]
    whole = positions(EpochSampler(51, seed=0))
    assert [position for pair in zip(*shares, strict=True) for position in pair] == whole[:50]


@pytest.mark.parametrize("rank", [0, 1])
def test_repeats_are_those_of_timm(rank):
    order = positions(EpochSampler(512, seed=0))
    unshuffled = RepeatAugSampler(range(512), num_replicas=2, rank=rank, shuffle=False, num_repeats=3)
    expected = [order[index] for index in unshuffled]
    assert positions(EpochSampler(512, seed=0, num_repeats=3, num_replicas=2, rank=rank)) == expected


def test_copies_of_an_image_are_augmented_differently():
    draws = list(EpochSampler(30, seed=0, num_repeats=3))
    assert draws[0].position == draws[1].position
    assert len({draw.seed for draw in draws}) == len(draws)


def test_transforms_draw_numbers_of_their_own():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_transforms(1)
    undisturbed = draw()
    seed_transforms(1)
    with own_random_numbers():
        seed_transforms(2)
        assert draw() != undisturbed
    assert draw() == undisturbed
