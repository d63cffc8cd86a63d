import math

import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import Budget, join, unit_costs
from spp.dynamics.ranking import Ranking
from spp.methods.units.lasso.budget import nearest
from spp.methods.units.lasso.config import LassoConfig

LR, MOMENTUM = 0.03, 0.9


def gradient(masked, masks, batch):
    masked.set_masks({name: value.float() for name, value in masks.items()})
    loss = F.cross_entropy(masked(batch[0]), batch[1])
    return join(masked.pairs, dict(zip(masks, torch.autograd.grad(loss, list(masked.masks.values())), strict=True)))


def plain_path(masked, batches, direction, ratio, num_measure, lam_max=None):
    """Proximal gradient with a lambda that changes step by step; returns masks and the supports after every step."""
    sizes = [pair.size for pair in masked.pairs]
    costs = unit_costs(masked.pairs, "macs")
    price = costs / costs[torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])].mean()

    def shaped(flat):
        return dict(zip((p.name for p in masked.pairs), flat.split(sizes), strict=True))

    m, batches = torch.ones_like(costs), list(batches)
    attention = torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])
    gradients = [gradient(masked, shaped(m), b) / price for b in batches[:num_measure]]
    s = torch.stack([g[attention].abs().mean() for g in gradients]).mean()
    rest = batches[num_measure:]
    if direction == "down":
        m = torch.zeros_like(m)
        if lam_max is None:
            lam_max = float(
                sum(gradient(masked, shaped(m), b) / price / s / num_measure for b in rest[:num_measure]).abs().max()
            )
            rest = rest[num_measure:]
    lams, supports, v = [], [], torch.zeros_like(m)
    for k, batch in enumerate(rest):
        progress = k / (len(rest) - 1)
        lams.append(lam_max * ratio ** (progress if direction == "down" else 1 - progress))
        v = MOMENTUM * v + (1 - MOMENTUM) * gradient(masked, shaped(m), batch) / price / s
        z = m - LR * v / (1 - MOMENTUM ** (k + 1))
        m = z.sign() * (z.abs() - LR * lams[-1]).clamp(min=0)
        supports.append(m != 0)
    return m, lams, supports


@pytest.mark.parametrize(("direction", "lam_max"), [("down", None), ("down", 40.0), ("up", 8.0)])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_the_path_is_proximal_gradient_and_the_score_is_the_last_lambda_of_change(tiny, name, direction, lam_max):
    num_steps, masked, reference = 40, tiny.masked(name), tiny.masked(name)
    batches = tiny.batches(masked, num_steps)
    m, lams, supports = plain_path(reference, batches, direction, 1e-2, 2, lam_max)
    config = LassoConfig(direction=direction, lam_max=lam_max, lam_ratio=1e-2, lr=LR)
    search = tiny.search(config, masked, num_steps)
    tiny.run(search, batches)
    torch.testing.assert_close(search.mask, m, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(join(masked.pairs, dict(masked.masks)).detach(), search.mask, rtol=0, atol=1e-6)

    scores, is_in = join(masked.pairs, search.scores()), supports[-1]
    num_changed = 0
    for unit, score in enumerate(scores.tolist()):
        states = [direction == "up", *(bool(support[unit]) for support in supports)]
        changes = [k for k in range(len(lams)) if states[k] != states[k + 1]]
        if bool(is_in[unit]) == (direction == "down"):
            num_changed += 1
            k = changes[-1]
            between = sorted((lams[k], lams[max(0, k - 1)]))
            assert between[0] * (1 - 1e-3) <= score <= between[1] * (1 + 1e-3)
    assert num_changed >= 10
    # Who is in the support at the end comes before all others.
    assert bool(is_in.any())
    assert min(scores[is_in].tolist()) >= max(scores[~is_in].tolist(), default=0.0)


@pytest.mark.parametrize("priced", [True, False])
def test_one_lambda_is_iterative_soft_thresholding(tiny, priced):
    """200 steps beside the rule, mask by mask: of the paper's Lasso no code is released, so it is the textbook's."""
    num_steps, lam, lr, masked, plain = 200, 0.5, 0.02, tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, num_steps)
    config = LassoConfig(lam=lam, lr=lr, momentum=0.0, priced=priced)
    search = tiny.search(config, masked, num_steps)
    tiny.run(search, batches)

    costs = {pair.name: pair.macs_per_unit if priced else 1.0 for pair in plain.pairs}
    attention = [pair for pair in plain.pairs if pair.kind != "mlp"]
    mean = sum(costs[pair.name] * pair.size for pair in attention) / sum(pair.size for pair in attention)
    masks = {pair.name: torch.ones(pair.size, dtype=torch.float64) for pair in plain.pairs}
    num_measured, measured = 10, []
    for number, batch in enumerate(batches):
        slopes = dict(zip(masks, gradient(plain, masks, batch).split([p.size for p in plain.pairs]), strict=True))
        prices = {name: cost / mean for name, cost in costs.items()}
        if number < num_measured:
            measured.append(torch.cat([slopes[pair.name].abs() / prices[pair.name] for pair in attention]).mean())
            continue
        scale = float(sum(measured)) / num_measured
        for name, mask in masks.items():
            step = lr / (scale * prices[name])  # the metric in which the penalty lam scale price |m| shrinks by lr lam
            for unit, value in enumerate((mask - step * slopes[name]).tolist()):
                mask[unit] = math.copysign(max(abs(value) - step * lam * scale * prices[name], 0.0), value)
    torch.testing.assert_close(search.mask, join(plain.pairs, masks), rtol=1e-3, atol=1e-4)
    assert 0 < int((search.mask == 0).sum()) < len(search.mask)


def quadratic(search, curvature, centre, num_steps):
    """Take steps on 1/2 sum a (m - b)^2, whose Lasso has a closed form."""
    sizes = [pair.size for pair in search.pairs]
    for _ in range(num_steps):
        masks = list(search.masks.values())
        slope = curvature * (torch.cat([mask.detach().double() for mask in masks]) - centre)
        for mask, piece in zip(masks, slope.split(sizes), strict=True):
            mask.grad = piece.to(mask.dtype)
        search.after_backward()


@pytest.mark.parametrize("priced", [True, False])
def test_one_lambda_reaches_the_minimum_of_its_problem(tiny, priced):
    masked = tiny.masked("swin")
    costs = unit_costs(masked.pairs, "macs")
    attention = torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])
    price = costs / costs[attention].mean() if priced else torch.ones_like(costs)
    generator = torch.Generator().manual_seed(0)
    curvature = price * (1 + torch.rand(len(costs), generator=generator, dtype=torch.float64))
    centre = torch.randn(len(costs), generator=generator, dtype=torch.float64)
    s = float((curvature * (1 - centre) / price)[attention].abs().mean())

    search = tiny.search(LassoConfig(lam=0.4, lr=0.1, priced=priced), masked, 600)
    quadratic(search, curvature, centre, 600)
    expected = centre.sign() * (centre.abs() - 0.4 * s * price / curvature).clamp(min=0)
    torch.testing.assert_close(search.mask, expected, rtol=1e-3, atol=1e-4)
    scores, inside = join(masked.pairs, search.scores()), expected != 0
    assert 10 < int(inside.sum()) < len(inside) - 10
    assert torch.equal(scores > 0, inside)
    assert torch.equal(join(masked.pairs, search.support()) > 0, inside)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_slow_path_finds_the_lambda_at_which_each_unit_changes_sides(tiny, direction):
    """Of the quadratic that is |a b| / (s c), where b is all that the start differs from 0."""
    masked = tiny.masked()
    costs = unit_costs(masked.pairs, "macs")
    attention = torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])
    price = costs / costs[attention].mean()
    generator = torch.Generator().manual_seed(0)
    centre = 0.1 + 0.8 * torch.rand(len(costs), generator=generator, dtype=torch.float64)
    s = float((1 - centre)[attention].mean())
    config = LassoConfig(direction=direction, lam_max=4.0, lam_ratio=0.01, lr=0.1, momentum=0.0)
    search = tiny.search(config, masked, 2000)
    quadratic(search, price, centre, 2000)
    torch.testing.assert_close(join(masked.pairs, search.scores()), centre / s, rtol=0.1, atol=0.0)
    assert not search.per_cost


def test_unpriced_penalties_are_equal(tiny):
    masked = tiny.masked()
    search = tiny.search(LassoConfig(priced=False), masked, 20)
    assert search.per_cost
    assert bool((search._price == 1).all())


@pytest.mark.parametrize(("kind", "share"), [("macs", 0.85), ("params", 0.5), ("units", 0.5), ("macs", 0.5)])
def test_bisection_finds_the_lambda_of_a_budget(tiny, kind, share):
    """Of the quadratic the support at lambda is known, and so is the largest lambda that pays for a budget."""
    masked = tiny.masked()
    costs, own = unit_costs(masked.pairs, "macs"), unit_costs(masked.pairs, kind)
    attention = torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])
    price = costs / costs[attention].mean()
    centre = 0.1 + 0.8 * torch.rand(len(costs), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = float((1 - centre)[attention].mean())
    dense = float(len(own)) if kind == "units" else getattr(tiny.achieved(masked.model, {}), kind)

    def size(support):  # heads share their units here, so that costs add up as long as no pair is empty
        return dense - float(own[~support].sum())

    largest = max(lam for lam in (centre / s).tolist() if size(centre / s >= lam) >= share * dense)
    config = LassoConfig(num_lambdas=14, lr=0.1)
    search = tiny.search(config, masked, 14 * 120, Budget(kind, share))
    quadratic(search, price, centre, 14 * 120)
    tried = search.summary()["lambdas"]
    assert len(tried) == 14
    for trial in tried:
        fewer, more = (int((centre / s > trial["lam"] * (1 + slack)).sum()) for slack in (0.01, -0.01))
        assert fewer <= trial["units"] <= more
    assert size(search.mask != 0) in {trial[kind] for trial in tried if trial["lam"] == search.lam}
    assert largest / 1.02 < search.summary()["lam"] <= largest * 1.02
    torch.testing.assert_close(search.mask, (centre - search.lam * s).clamp(min=0), rtol=1e-2, atol=1e-2)

    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    masks = tiny.select(config, ranking, kind, share)
    member = join(masked.pairs, masks) > 0
    support = search.mask != 0
    assert not (member & ~support).any() or not (support & ~member).any()  # it is cut or filled, not changed
    assert 0 <= share * dense - size(member) < float(own.max())
    assert kind == "units" or size(member) == getattr(tiny.achieved(masked.model, masks), kind)


def plain_bisection(masked, batches, wanted, num_lambdas):
    """Proximal gradient at one lambda after the other; returns lambdas, masks and whether they had settled."""
    sizes, names = [pair.size for pair in masked.pairs], [pair.name for pair in masked.pairs]
    attention = torch.cat([torch.full((p.size,), p.kind != "mlp") for p in masked.pairs])
    costs = unit_costs(masked.pairs, "macs")
    price = costs / costs[attention].mean()

    def slope(m, batch):
        return gradient(masked, dict(zip(names, m.split(sizes), strict=True)), batch) / price

    s = torch.stack([slope(torch.ones_like(costs), b)[attention].abs().mean() for b in batches[:2]]).mean()
    lam, low, high, found = 0.5, None, None, []
    m = enough = torch.ones_like(costs)
    for segment in torch.arange(2, len(batches)).tensor_split(num_lambdas):
        v, masks = torch.zeros_like(m), [m]
        for k, batch in enumerate(segment.tolist()):
            v = MOMENTUM * v + (1 - MOMENTUM) * slope(m, batches[batch]) / s
            z = m - LR * v / (1 - MOMENTUM ** (k + 1))
            m = z.sign() * (z.abs() - LR * lam).clamp(min=0)
            masks.append(m)
        pays, half = int((m != 0).sum()) >= wanted, masks[len(segment) // 2]
        fall = float((half.abs() - m.abs()).sum() / (half != 0).sum())
        alone = LR * lam * (len(segment) - len(segment) // 2)
        found.append((lam, m, fall < 0.1 * alone if pays else fall > -0.1 * alone))
        if not found[-1][2]:
            continue  # it is on its way to the budget: not yet an answer
        low, high, enough = (lam, high, m) if pays else (low, lam, enough)
        m, lam = enough, lam * 3 if high is None else lam / 3 if low is None else math.sqrt(low * high)
    return found


@pytest.mark.parametrize("share", [0.995, 0.9, 0.4])
def test_the_lambdas_of_a_budget_share_the_steps_and_start_from_each_others_masks(tiny, share):
    masked, reference = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, 38)
    wanted = share * sum(pair.size for pair in masked.pairs)
    found = plain_bisection(reference, batches, wanted, 4)
    config = LassoConfig(num_lambdas=4, lr=LR)
    search = tiny.search(config, masked, 38, Budget("units", share))
    tiny.run(search, batches)
    tried = search.summary()["lambdas"]
    assert [trial["lam"] for trial in tried] == pytest.approx([lam for lam, _, _ in found], rel=1e-4)
    assert [trial["units"] for trial in tried] == [int((m != 0).sum()) for _, m, _ in found]
    assert [trial["is_settled"] for trial in tried] == [is_settled for _, _, is_settled in found]
    distances = [abs(math.log(int((m != 0).sum()) / wanted)) for _, m, _ in found]
    lam, m, _ = found[max(k for k, distance in enumerate(distances) if distance == min(distances))]
    assert search.lam == pytest.approx(lam, rel=1e-4)
    torch.testing.assert_close(search.mask, m, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(join(masked.pairs, dict(masked.masks)).detach(), search.mask, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("costs", "chosen"), [([9, 5, 7], 2), ([9, 7, 7, 5], 2), ([3, 5, 2], 1), ([0], 0), ([4, 100], 0), ([4, 7], 1)]
)
def test_the_support_to_cut_or_fill_is_the_one_nearest_to_the_budget(costs, chosen):
    assert nearest(costs, 6) == chosen


def test_a_search_with_fewer_steps_than_lambdas_tries_one_a_step(tiny):
    masked = tiny.masked()
    search = tiny.search(LassoConfig(num_lambdas=6), masked, 5, Budget("macs", 0.8))
    tiny.run(search, tiny.batches(masked, 5))
    assert len(search.summary()["lambdas"]) == 4  # one step measured s


def test_a_budget_out_of_reach_is_refused(tiny):
    with pytest.raises(ValueError, match=r"^macs: 0\.01 cannot be reached; allowed: "):
        tiny.search(LassoConfig(), tiny.masked(), 40, Budget("macs", 0.01))


SEARCHES = [({}, ()), ({"direction": "up"}, ()), ({"lam": 1.0}, ()), ({}, (Budget("macs", 0.5),))]
"""Settings, and the budget of a search that has one."""


@pytest.mark.parametrize(("settings", "budget"), SEARCHES)
def test_members_fill_their_budget_and_compact_is_masked(tiny, settings, budget):
    config, masked = LassoConfig(**settings), tiny.masked("swin")
    search = tiny.search(config, masked, 40, *budget)
    tiny.run(search, tiny.batches(masked, 40))
    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    masks = tiny.select(config, ranking, "macs", 0.5)
    missed = 0.5 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert 0 <= missed < max(pair.macs_per_unit for pair in masked.pairs)
    tiny.assert_compact_is_masked(masked, masks)


@pytest.mark.parametrize(("settings", "budget"), SEARCHES)
@pytest.mark.parametrize("stop", [1, 2, 3, 13, 25])
def test_a_search_goes_on_where_it_stopped(tiny, settings, budget, stop):
    config, whole, part = LassoConfig(**settings), tiny.masked(), tiny.masked()
    batches = tiny.batches(whole, 30)
    search = tiny.search(config, whole, 30, *budget)
    tiny.run(search, batches)
    first = tiny.search(config, part, 30, *budget)
    tiny.run(first, batches[:stop])
    rest = tiny.masked()
    rest.load_state_dict(part.state_dict())
    second = tiny.search(config, rest, 30, *budget)
    second.load_state_dict(first.state_dict())
    tiny.run(second, batches[stop:])
    assert torch.equal(second.mask, search.mask)
    assert all(torch.equal(second.scores()[name], score) for name, score in search.scores().items())
    assert second.summary() == search.summary()


def test_settings():
    for wrong in (
        {"lam": 0.0},
        {"direction": "in"},
        {"lam_ratio": 1.0},
        {"momentum": 1.0},
        {"scope": "pool"},
        {"num_lambdas": 0},
    ):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            LassoConfig(**wrong)


def test_a_search_knows_the_settings_that_it_uses():
    """What a search does not use must not change its key."""
    shared = {"name": "lasso", "lr": None, "momentum": 0.9, "priced": True}
    path = {"lam": None, "lam_max": None, "lam_ratio": 1e-3, "direction": "down"}
    assert LassoConfig(scope="family").search_settings("ranking") == {**shared, **path}
    assert LassoConfig(min_units=2).search_settings("budget ranking") == {**shared, "num_lambdas": 5}
    for config, kind, pipeline in (
        (LassoConfig(lam=1.0), "budget ranking", "lasso_path"),
        (LassoConfig(direction="up"), "budget ranking", "lasso_path"),
        (LassoConfig(num_lambdas=3), "ranking", "lasso"),
    ):
        with pytest.raises(ValueError, match=rf"^method\.(lam|direction|num_lambdas): .* use pipeline={pipeline}$"):
            config.search_settings(kind)
