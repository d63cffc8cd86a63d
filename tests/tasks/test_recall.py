"""Recall over a gallery against a loop over all orders of the scores."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spp


def _mean_rank(scores: list[float], own: list[int]) -> float:
    """Rank of the first own entry, averaged over all orders of equal scores, by trying every one of them."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            ranks.append(1 + min(order.index(entry) for entry in own))
    return sum(ranks) / len(ranks)


def _recall_by_loop(images: Tensor, texts: Tensor, image_of_text: list[int], ks: tuple[int, ...]) -> dict[str, float]:
    scores = (images @ texts.T).tolist()
    owned = {image: [t for t, owner in enumerate(image_of_text) if owner == image] for image in range(len(images))}
    image_ranks = [_mean_rank(scores[image], own) for image, own in owned.items() if own]
    text_ranks = [_mean_rank([row[text] for row in scores], [owner]) for text, owner in enumerate(image_of_text)]
    return {
        f"{name}_r{k}": 100 * sum(rank <= k for rank in ranks) / len(ranks)
        for k in ks
        for name, ranks in (("i2t", image_ranks), ("t2i", text_ranks))
    }


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_it_is_the_average_over_all_orders_of_equal_scores(data: st.DataObject) -> None:
    num_images, num_texts = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    whole = st.integers(-1, 1)  # small whole numbers: many scores are equal
    images = torch.tensor([[data.draw(whole) for _ in range(2)] for _ in range(num_images)]).float()
    texts = torch.tensor([[data.draw(whole) for _ in range(2)] for _ in range(num_texts)]).float()
    owners = [data.draw(st.integers(0, num_images - 1)) for _ in range(num_texts)]
    chunk = data.draw(st.integers(1, 7))
    found = spp.recall(images, texts, torch.tensor(owners), ks=(1, 2, 3), chunk=chunk)
    assert found == pytest.approx(_recall_by_loop(images, texts, owners, (1, 2, 3)))


def test_chunks_change_nothing_and_equal_embeddings_are_tied() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(37, 24, generator=generator)
    images[20:] = images[3]  # seventeen copies of one
    texts = (images.repeat_interleave(3, 0) + torch.randn(111, 24, generator=generator)).contiguous()
    owners = torch.arange(37).repeat_interleave(3)
    whole = spp.recall(images, texts, owners)
    assert all(spp.recall(images, texts, owners, chunk=size) == whole for size in (1, 5, 16, 64))
    order = torch.randperm(37, generator=generator)
    position = torch.empty(37, dtype=torch.int64)
    position[order] = torch.arange(37)
    assert spp.recall(images[order], texts, position[owners]) == whole


def test_a_network_that_tells_nothing_gets_nothing() -> None:
    same = torch.ones(100, 4)
    assert spp.recall(same, same, torch.arange(100), ks=(1, 5, 10)) == dict.fromkeys(
        ["i2t_r1", "t2i_r1", "i2t_r5", "t2i_r5", "i2t_r10", "t2i_r10"], 0.0
    )


def test_images_without_a_text_are_no_queries_but_stand_in_the_way() -> None:
    images = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0]])
    assert spp.recall(images, texts, torch.tensor([0]), ks=(1, 2)) == {
        "i2t_r1": 100.0,
        "t2i_r1": 0.0,
        "i2t_r2": 100.0,
        "t2i_r2": 100.0,
    }


@pytest.mark.parametrize(
    ("images", "texts", "owners", "word"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), torch.tensor([0, 1]), "shapes"),
        (torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0]), "image_of_text of shape"),
        (torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0, 2]), "rows 0 to 2"),
        (torch.ones(2, 3), torch.full((2, 3), float("nan")), torch.tensor([0, 1]), "texts are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(images: Tensor, texts: Tensor, owners: Tensor, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        spp.recall(images, texts, owners)
