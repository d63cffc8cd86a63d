"""Joint Gauss-Newton, against the quadratic form of every candidate set."""

import pytest
import torch
import torch.nn.functional as F

from spp.methods.units.gn.config import GNConfig
from spp.methods.units.gn.search import removal_order


def test_every_removal_raises_the_quadratic_form_least_per_cost():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    costs = torch.tensor([1.0, 2.0, 1.0, 4.0, 1.0, 3.0, 2.0])
    is_left = torch.tensor([True, True, False, True, True, True, True])
    fisher = gradients.T @ gradients / 9
    gone: list[int] = []
    for unit in removal_order(gradients, costs, is_left).tolist():
        form = {u: float(fisher[[*gone, u]][:, [*gone, u]].sum()) for u in range(7) if is_left[u] and u not in gone}
        before = float(fisher[gone][:, gone].sum())
        assert unit == min(form, key=lambda u: (form[u] - before) / float(costs[u]))
        gone.append(unit)
    assert sorted(gone) == [0, 1, 3, 4, 5, 6]


def test_several_at_a_time_still_give_every_unit_a_place():
    order = removal_order(torch.randn(5, 10), torch.ones(10), torch.ones(10, dtype=torch.bool), max_steps=4)
    assert sorted(order.tolist()) == list(range(10))


@pytest.mark.parametrize("num_cuts", [1, 2])
def test_the_search_removes_by_the_gradients_of_single_samples(tiny, num_cuts):
    masked = tiny.masked()
    masked.model.requires_grad_(False)
    batches = tiny.batches(masked, 2)
    search = tiny.search(GNConfig(num_cuts=num_cuts, cut_to=0.5), masked, 2)
    tiny.run(search, batches)

    masked = tiny.masked()
    rows = []
    for images, labels in batches[: 2 // num_cuts]:
        for image, label in zip(images, labels, strict=True):
            loss = F.cross_entropy(masked(image[None]), label[None])
            rows.append(torch.cat(torch.autograd.grad(loss, list(masked.masks.values()))).double())
    order = removal_order(torch.stack(rows), search.costs, torch.ones(len(search.costs), dtype=torch.bool))
    found = torch.cat(list(search.scores().values())).argsort()
    num_same = len(order) if num_cuts == 1 else 5
    assert found[:num_same].tolist() == order[:num_same].tolist()


def test_a_measuring_looks_at_so_many_samples(tiny):
    batches = tiny.batches(tiny.masked(), 4)
    few, all_of_them = (tiny.search(GNConfig(num_samples=count), tiny.masked(), 4) for count in (16, 32))
    alone = tiny.search(GNConfig(), tiny.masked(), 2)
    for search, seen in ((few, batches), (all_of_them, batches), (alone, batches[:2])):
        tiny.run(search, seen)
    assert all(torch.equal(few.scores()[name], score) for name, score in alone.scores().items())
    assert any(not torch.equal(few.scores()[name], score) for name, score in all_of_them.scores().items())
