"""DessiLBI against its recurrences, written out for one unit's weights after the other."""

import math

import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.ranking import Ranking
from spp.methods.units.dessilbi.config import DessiLBIConfig


def places(model, pair, unit):
    """The weights of one unit by hand from timm's layout: (parameter, index that selects them)."""
    module = model.get_submodule(pair.module)
    if pair.kind == "mlp":
        return [(module.fc1.weight, (unit,)), (module.fc2.weight, (slice(None), unit))]
    width = module.qkv.out_features // 3
    head_width = width // module.num_heads
    rows = torch.tensor([unit] if pair.per_head else [h * head_width + unit for h in range(module.num_heads)])
    if pair.kind == "qk":
        return [(module.qkv.weight, (rows,)), (module.qkv.weight, (rows + width,))]
    return [(module.qkv.weight, (rows + 2 * width,)), (module.proj.weight, (slice(None), rows))]


def flat(model, pair, unit, of=lambda parameter: parameter.detach()):
    return torch.cat([of(parameter)[index].flatten() for parameter, index in places(model, pair, unit)]).double()


def reference(masked, batches, step, mu, kappa, alpha, lam, norm):
    """V, Gamma and time of entry of every unit; moves the weights of `masked`."""
    units = [(pair, unit) for pair in masked.pairs for unit in range(pair.size)]
    value = [torch.zeros_like(flat(masked.model, *u)) for u in units]
    gamma, entry = list(value), [math.inf] * len(units)
    for k, (images, labels) in enumerate(batches):
        masked.model.zero_grad()
        F.cross_entropy(masked(images), labels).backward()
        apart = [flat(masked.model, *u) - g for u, g in zip(units, gamma, strict=True)]
        with torch.no_grad():
            for parameter in masked.model.parameters():
                parameter -= step * parameter.grad
            for u, d in zip(units, apart, strict=True):
                pieces = places(masked.model, *u)
                sizes = [parameter[index].numel() for parameter, index in pieces]
                for (parameter, index), piece in zip(pieces, d.split(sizes), strict=True):
                    parameter[index] -= step / mu * piece.view_as(parameter[index])
        for i, d in enumerate(apart):
            before, value[i] = norm(value[i]), value[i] + alpha / mu * d
            gamma[i] = kappa * max(0.0, 1 - lam / norm(value[i])) * value[i]
            if entry[i] == math.inf and norm(value[i]) > lam:
                entry[i] = k + (lam - before) / (norm(value[i]) - before)
    return units, value, gamma, entry


def released_path(masked, batches, step, mu, num_steps_of_never=2000):
    """The core optimizer and the record of entries as released (kappa 1, threshold 1, momentum .9).

    Z and Gamma have the shapes of the matrices; what is a filter there is a group of the units' weights here. Moves the
    weights of `masked`; returns Z by matrix, and by group its first step in the support and what it is pruned by.
    """
    model, groups = masked.model, {}
    for number, unit in enumerate((pair, unit) for pair in masked.pairs for unit in range(pair.size)):
        for parameter, index in places(model, *unit):
            group = groups.setdefault(id(parameter), (parameter, torch.full(parameter.shape, -1)))[1]
            group[index] = number
    num_groups = 1 + max(int(group.max()) for _, group in groups.values())

    def norms(tensors):
        squares = torch.zeros(num_groups, dtype=torch.float64)
        for tensor, (_, group) in zip(tensors, groups.values(), strict=True):
            squares.index_add_(0, group.flatten(), tensor.double().square().flatten())
        return squares.sqrt()

    matrices = [parameter for parameter, _ in groups.values()]
    z = [torch.zeros_like(matrix) for matrix in matrices]
    gamma = [torch.zeros_like(matrix) for matrix in matrices]
    buffers = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    first = torch.full((num_groups,), float(num_steps_of_never), dtype=torch.float64)
    for k, (images, labels) in enumerate(batches):
        model.zero_grad()
        F.cross_entropy(masked(images), labels).backward()
        with torch.no_grad():
            apart = [matrix - g for matrix, g in zip(matrices, gamma, strict=True)]
            for parameter, buffer in buffers.items():
                buffer.mul_(0.9).add_(parameter.grad)
                parameter -= step * buffer
            for matrix, value, difference in zip(matrices, z, apart, strict=True):
                matrix -= step / mu * difference
                value += step / mu * difference
            shrunk = (1 - 1 / norms(z)).clamp(min=0)
            gamma = [v * shrunk[group].float() for v, (_, group) in zip(z, groups.values(), strict=True)]
            first = torch.where((shrunk > 0) & (first == num_steps_of_never), float(k), first)
    return z, first, norms([matrix.detach() for matrix in matrices]) - first


def test_the_quirks_are_the_released_path_and_order(tiny):
    """200 steps with the released step size, mu and kappa of its smallest example."""
    masked, plain = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, 200)
    search = tiny.search(DessiLBIConfig(mu=20.0, lr=0.1, lam=1.0, released_quirks=True), masked, 200)
    buffers = {parameter: torch.zeros_like(parameter) for parameter in masked.model.parameters()}
    for images, labels in batches:
        masked.model.zero_grad()
        search.before_forward()
        F.cross_entropy(masked(images), labels).backward()
        task = {parameter: parameter.grad.clone() for parameter in buffers}
        search.after_backward()
        with torch.no_grad():
            for parameter, buffer in buffers.items():
                buffer.mul_(0.9).add_(task[parameter])
                parameter -= 0.1 * (buffer + parameter.grad - task[parameter])
    z, first, order = released_path(plain, batches, 0.1, 20.0)
    for part, value in zip(search.parts.values(), z, strict=True):
        torch.testing.assert_close(part.value, value, rtol=1e-2, atol=1e-3)
    entered = first < 2000
    assert 10 < int(entered.sum()) < len(first) - 10
    assert torch.equal(entered, search.entry.isfinite())
    assert torch.equal(search.entry[entered].floor(), first[entered])
    scores = torch.cat(list(search.scores().values()))
    torch.testing.assert_close(scores[entered], order[entered], rtol=1e-2, atol=1e-3)
    # What never entered is behind all others, and among itself the norm decides: 2000 stands for never, here 200.
    torch.testing.assert_close(scores[~entered] + 200, order[~entered] + 2000, rtol=1e-2, atol=1e-3)
    assert scores[~entered].max() < scores[entered].min()


def rms(x):
    return float(x.square().mean().sqrt())


def l2(x):
    return float(x.norm())


@pytest.mark.parametrize("quirks", [False, True])
@pytest.mark.parametrize(("name", "per_head"), [("vit", False), ("vit", True), ("swin", True)])
def test_the_path_is_that_of_the_recurrences(tiny, name, per_head, quirks):
    norm = l2 if quirks else rms
    config = DessiLBIConfig(mu=7.0, kappa=1.5, lr=1.4, released_quirks=quirks, horizon=0.95)
    masked = tiny.masked(name, per_head=per_head)
    batches = tiny.batches(masked, 12)
    search = tiny.search(config, masked, len(batches))
    plain = tiny.masked(name, per_head=per_head)
    norms = [norm(flat(plain.model, pair, unit)) for pair in plain.pairs for unit in range(pair.size)]
    assert search.lam == pytest.approx(0.95 * 12 * 1.4 / 7 * torch.tensor(norms).median().item())
    tiny.run(search, batches, lr=0.02)
    units, value, gamma, entry = reference(plain, batches, 0.02, 7.0, 1.5, 1.4, search.lam, norm)

    for (ran_name, ran), (_, expected) in zip(
        masked.model.named_parameters(), plain.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(ran, expected, rtol=1e-4, atol=1e-6, msg=ran_name)
    assert search.entry.isfinite().sum() > 5
    assert search.entry.isinf().sum() > 5
    assert search.entry.tolist() == pytest.approx(entry, rel=1e-4)
    assert all(mask.eq(1).all() for mask in search.masks.values())

    values = {name: part.value for name, part in search.parts.items()}
    gammas = dict(search.gamma())
    names = {id(parameter): name for name, parameter in masked.model.named_parameters()}
    scores = torch.cat(list(search.scores().values())).tolist()
    for u, v, g, e, score in zip(units, value, gamma, entry, scores, strict=True):
        for found, expected in ((values, v), (gammas, g)):
            mine = flat(masked.model, *u, of=lambda parameter, found=found: found[names[id(parameter)]])
            torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-6)
        weight = norm(flat(masked.model, *u))
        if quirks:
            assert score == pytest.approx(weight - (12 if e == math.inf else math.floor(e)), rel=1e-4)
        else:
            time = e if e < math.inf else 12 + (search.lam - norm(v)) * 7 / 1.4 / weight
            assert score == pytest.approx(12 / time, rel=1e-3)


def test_weights_that_stand_still_enter_in_the_order_of_their_norm_half_of_them_within_the_horizon(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 40)
    search = tiny.search(DessiLBIConfig(horizon=0.25), masked, 40)
    norms = [rms(flat(masked.model, pair, unit)) for pair in masked.pairs for unit in range(pair.size)]
    tiny.run(search, batches[:11], lr=0.0)
    assert float(search.entry.isfinite().double().mean()) > 0.5
    # Up to the entry nothing but the norm counts: V = k lr / mu W, past the steps taken as within them.
    scores = torch.cat(list(search.scores().values()))
    expected = torch.tensor(norms).double() * 11 * search.lr / 100 / search.lam
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)
    is_mlp = [pair.kind == "mlp" for pair in masked.pairs for _ in range(pair.size)]
    entered = search.entry.isfinite()[torch.tensor(is_mlp)]
    assert search.metrics()["entered_mlp"] == pytest.approx(int(entered.sum()) / 64)


def test_the_defaults_let_gamma_follow_the_weights_but_not_overshoot(tiny):
    masked = tiny.masked()
    for num_steps, rate in ((1000, 0.02), (10, 0.5), (0, 0.5)):
        search = tiny.search(DessiLBIConfig(kappa=2.0, mu=50.0), masked, num_steps)
        assert 2.0 * search.lr / 50 == pytest.approx(rate)
    assert tiny.search(DessiLBIConfig(lr=0.1, lam=0.7), masked, 1000).lam == 0.7


def test_quirks_favour_large_groups_and_nothing_else_before_the_first_entry(tiny):
    searches = {}
    for quirks in (False, True):
        masked = tiny.masked()
        search = tiny.search(DessiLBIConfig(lam=1e9, released_quirks=quirks), masked, 4)
        tiny.run(search, tiny.batches(masked, 4), lr=0.02)
        searches[quirks] = search
    for name, part in searches[False].parts.items():
        assert torch.equal(part.value, searches[True].parts[name].value)
        assert torch.equal(part.weight, searches[True].parts[name].weight)
    sizes = torch.cat(
        [torch.full((p.size,), float(len(flat(masked.model, p, 0)))) for p in searches[True].pairs]
    ).double()
    torch.testing.assert_close(searches[True].norm, searches[False].norm * sizes.sqrt())
    assert len(set(sizes.tolist())) > 1


@pytest.mark.parametrize("stop", [2, 6])
def test_a_search_goes_on_exactly_where_it_stopped(tiny, stop):
    config = DessiLBIConfig(horizon=0.4)
    whole, first = (tiny.masked("swin") for _ in range(2))
    batches = tiny.batches(whole, 10)
    uninterrupted = tiny.search(config, whole, 10)
    tiny.run(uninterrupted, batches, lr=0.05)
    search = tiny.search(config, first, 10)
    tiny.run(search, batches[:stop], lr=0.05)
    second = tiny.masked("swin", seed=9)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.5)
    resumed = tiny.search(config, second, 10)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(search.state_dict())
    tiny.run(resumed, batches[stop:], lr=0.05)
    assert resumed.num_steps_taken == 10
    for name, score in uninterrupted.scores().items():
        assert torch.equal(resumed.scores()[name], score)


@pytest.mark.parametrize(("name", "per_head"), [("vit", True), ("swin", False), ("swin", True)])
def test_members_fill_their_budget_and_compact_is_masked(tiny, name, per_head):
    masked = tiny.masked(name, per_head=per_head)
    search = tiny.search(DessiLBIConfig(), masked, 10)
    tiny.run(search, tiny.batches(masked, 10), lr=0.05)
    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    dense = masked.pairs[0].model_cost.macs
    largest = max(pair.macs_per_unit * pair.size for pair in masked.pairs)
    for scope in ("family", "global"):
        smaller = None
        for share in (0.4, 0.6, 0.8):
            masks = tiny.select(DessiLBIConfig(scope=scope), ranking, "macs", share)
            assert 0 <= share * dense - tiny.achieved(masked.model, masks).macs < largest
            assert smaller is None or all((smaller[key] <= mask).all() for key, mask in masks.items())
            smaller = masks
            tiny.assert_compact_is_masked(masked, masks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mu": 0.0}, "mu: 0.0 is not allowed; allowed: a positive number"),
        ({"horizon": -1.0}, "horizon: -1.0 is not allowed"),
        ({"lam": 0.0}, "lam: 0.0 is not allowed; allowed: a positive number, or null; use null"),
        ({"scope": "layer"}, "scope: 'layer' is not allowed; allowed: global, family; use global"),
        ({"min_units": -1}, "min_units: -1 is not allowed"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DessiLBIConfig(**values)


def test_the_selection_is_not_of_the_search():
    config = DessiLBIConfig(scope="family", min_units=2)
    assert config.selection_settings() == {"name": "dessilbi", "scope": "family", "min_units": 2}
    assert config.search_settings("ranking") == DessiLBIConfig().search_settings("ranking")
    assert not set(config.search_settings("ranking")) & {"scope", "min_units"}
