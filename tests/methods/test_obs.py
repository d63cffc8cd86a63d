"""OBS-Fisher, against elimination written out with an inversion and a least-squares solution for every candidate."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spp.methods.elimination.greedy import eliminate_plain, eliminate_refitted
from spp.methods.units.obs.config import OBSConfig


def positive(size: int, seed: int) -> Tensor:
    factor = torch.randn(2 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor.T @ factor


@pytest.mark.parametrize("per_unit", [1, 2])
def test_every_removal_is_the_cheapest_with_the_best_weights_for_what_stays(per_unit: int) -> None:
    """The error of a removed set: the least of tr(D H D^T A) over changes D of W that make its columns zero."""
    num_channels, num_outputs, ridge = 6, 4, 0.01
    gram, fisher = positive(num_channels, 0), positive(num_outputs, 1)
    weight = torch.randn(num_outputs, num_channels, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    damped = gram + ridge * gram.diagonal().mean() * torch.eye(num_channels, dtype=torch.float64)
    groups = torch.arange(num_channels).view(per_unit, -1).T

    def least_error(units: list[int]) -> float:
        gone = groups[units].flatten()
        left = torch.tensor([c for c in range(num_channels) if c not in gone.tolist()], dtype=torch.long)
        change = torch.zeros_like(weight)
        change[:, gone] = -weight[:, gone]
        if len(left):  # D H = 0 in the columns that are free
            change[:, left] = torch.linalg.solve(damped[left][:, left], damped[left][:, gone] @ weight[:, gone].T).T
        return float(torch.trace(change @ damped @ change.T @ fisher))

    order, errors = eliminate_refitted(gram, weight.T @ fisher @ weight, groups, ridge)
    gone: list[int] = []
    for unit, error in zip(order.tolist(), errors.tolist(), strict=True):
        rises = {u: least_error([*gone, u]) - least_error(gone) for u in range(len(groups)) if u not in gone}
        assert unit == min(rises, key=lambda u: rises[u])
        assert error == pytest.approx(rises[unit], rel=1e-6)
        gone.append(unit)


def test_without_refitting_an_error_is_the_sum_over_the_removed_set() -> None:
    products = positive(5, 3) - 2.0
    order, errors = eliminate_plain(products)
    gone: list[int] = []
    for unit, error in zip(order.tolist(), errors.tolist(), strict=True):
        rises = {
            u: float(products[[*gone, u]][:, [*gone, u]].sum() - products[gone][:, gone].sum())
            for u in range(5)
            if u not in gone
        }
        assert unit == min(rises, key=lambda u: rises[u])
        assert error == pytest.approx(rises[unit])
        gone.append(unit)


def single_samples(masked, batches, module):
    """For every sample its input of a module, and the gradient of its own loss at the module's output."""
    seen = []
    handle = module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            loss = F.cross_entropy(masked(image[None]), label[None])
            inputs, output = seen.pop()
            yield inputs.detach().double(), output.detach().double(), torch.autograd.grad(loss, output)[0].double()
    handle.remove()


def test_the_order_of_a_pair_rests_on_single_samples_and_tokens(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 2)
    search = tiny.search(OBSConfig(), masked, 2)
    masked.model.requires_grad_(False)
    tiny.run(search, batches)
    scores = search.scores()

    fc2 = masked.model.blocks[0].mlp.fc2
    samples = list(single_samples(masked, batches, fc2))
    inputs, grads = (torch.cat([sample[at].flatten(0, 1) for sample in samples]) for at in (0, 2))
    centred, weight = inputs - inputs.mean(0), fc2.weight.double()
    fisher = grads.T @ grads / len(grads)
    units = torch.arange(fc2.in_features)[:, None]
    order, _ = eliminate_refitted(centred.T @ centred / len(samples), weight.T @ fisher @ weight, units, 0.01)
    assert scores["blocks.0.mlp"].argsort().tolist() == order.tolist()

    products = torch.zeros(8, 8, dtype=torch.float64)
    for _, output, grad in single_samples(masked, batches, masked.model.blocks[1].attn.qkv):
        rows = (output * grad)[0, :, :16].reshape(-1, 8)  # tokens and heads one below the other
        products += rows.T @ rows / len(samples)
    order, _ = eliminate_plain(products)
    assert scores["blocks.1.attn.qk"].argsort().tolist() == order.tolist()


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("num_cuts", [1, 3])
def test_every_unit_has_a_place_and_members_are_nested(tiny, num_cuts, per_head):
    masked = tiny.masked("swin", per_head=per_head)
    before = copy.deepcopy(masked.model.state_dict())
    masked.model.requires_grad_(False)
    config = OBSConfig(num_cuts=num_cuts, cut_to=0.3)
    search = tiny.search(config, masked, 6)
    left = []
    tiny.run(
        search,
        tiny.batches(masked, 6),
        after_step=lambda search: left.append(float(search.costs[search.is_left].sum())),
    )
    places = torch.cat(list(search.scores().values()))
    assert places.sort().values.tolist() == list(range(len(places)))
    ranking = search.order({})
    small, large = (tiny.select(config, ranking, "macs", size) for size in (0.5, 0.7))
    assert all(bool((mask <= large[name]).all()) for name, mask in small.items())
    total = masked.pairs[0].model_cost.macs
    fixed = total - float(search.costs.sum())
    if num_cuts == 3:
        for step, share in ((2, 0.3 ** (1 / 3)), (4, 0.3 ** (2 / 3))):
            assert share * total - float(search.costs.max()) < fixed + left[step - 1] <= share * total + 1e-6
        name = next(name for name in before if name.endswith("attn.proj.weight"))
        assert not torch.equal(masked.model.state_dict()[name], before[name])
    else:
        assert all(torch.equal(value, before[name]) for name, value in masked.model.state_dict().items())


def test_a_search_goes_on_where_it_was(tiny):
    config, batches = OBSConfig(num_cuts=2), tiny.batches(tiny.masked(), 4)
    whole, first = (tiny.search(config, tiny.masked(), 4) for _ in range(2))
    tiny.run(whole, batches)
    tiny.run(first, batches[:3])
    rest = tiny.search(config, tiny.masked(), 4)
    rest.masked.load_state_dict(copy.deepcopy(first.masked.state_dict()))
    rest.load_state_dict(copy.deepcopy(first.state_dict()))
    tiny.run(rest, batches[3:])
    assert all(torch.equal(rest.scores()[name], score) for name, score in whole.scores().items())


def test_more_cuts_than_steps_are_refused(tiny):
    with pytest.raises(ValueError, match=r"method.num_cuts: 3 is not allowed in a search of 2 steps"):
        tiny.search(OBSConfig(num_cuts=3), tiny.masked(), 2)
    with pytest.raises(ValueError, match=r"method.name: obs is not allowed in a search of 0 steps"):
        tiny.search(OBSConfig(), tiny.masked(), 0).scores()
