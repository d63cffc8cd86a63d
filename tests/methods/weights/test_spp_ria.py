"""Both drives of spp_ria: one is RIA, the other a split Bregman iteration whose steps are exact minima."""

from itertools import product

import pytest
import torch

from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.methods.weights.spp_ria.mask_bregman import Schedule, iterate, minimise_over_m
from spp.methods.weights.spp_ria.score_path import ALPHA, LAMBDA, entry_times
from spp.sparsity.curvature import Curvature
from spp.sparsity.importance import relative_importance
from spp.sparsity.pattern import Pattern, keep_largest
from spp.sparsity.problem import LinearProblem, prepare_input
from spp.sparsity.statistics import InputStats

PATTERNS = [
    Pattern(sparsity=0.5, group="row"),
    Pattern(sparsity=0.3, group="matrix"),
    Pattern(sparsity=0.5, group="block", block_size=16),
    Pattern(keep=2, of=4),
]
SCHEDULE = Schedule(num_steps=16, rho=0.1, growth=1.3)


def make(num_out=24, num_in=32, num_tokens=400, num_batches=1, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = torch.eye(num_in, dtype=torch.float64) + normal(num_in, num_in) / num_in**0.5
    x = (normal(num_tokens, num_in) @ mixing) * (spread * normal(num_in)).exp()
    stats = InputStats(num_in, ("norms", "gram", "batches"))
    for batch in x.chunk(num_batches):
        stats.add(batch)
    return normal(num_out, num_in), stats, x


def losses_of(weight, mask, curvature):
    return iterate(weight, mask, curvature, PATTERNS[0], Schedule(num_steps=0, rho=0.1, growth=1.3)).losses


def choose(weight, stats, pattern, **settings):
    config = read_weight_method(settings)
    known = prepare_input("fc", weight, stats, 0.01)
    return load_weight_method(config).choose(LinearProblem(weight, known, pattern)).mask


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_path_of_one_mini_batch_is_ria(pattern):
    weight, stats, _ = make()
    path = choose(weight, stats, pattern, name="spp_ria", drive="minibatch")
    assert torch.equal(path, choose(weight, stats, pattern, name="ria"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_path_of_many_mini_batches_is_ria_with_the_mean_of_their_powers(pattern):
    weight, stats, _ = make(num_batches=8)
    path = choose(weight, stats, pattern, name="spp_ria", drive="minibatch")
    assert float((path == choose(weight, stats, pattern, name="ria")).double().mean()) > 0.97
    # The path adds up S_b over its mean, so it orders by that sum, but for where in its last turn a weight enters.
    importance = relative_importance(weight)
    scores = [importance * norms.double() ** 0.5 for norms in stats.batch_norms]
    total = sum(score / score.mean() for score in scores)
    assert float((path == keep_largest(total, pattern)).double().mean()) > 0.99


def test_times_of_entry_are_those_of_the_dynamics_step_by_step():
    weight, stats, _ = make(num_out=6, num_in=8, num_tokens=60, num_batches=5)
    # Weights next to 0 would take many thousand steps to enter.
    weight = weight + 0.5 * weight.sign()
    importance, norms = relative_importance(weight), stats.batch_norms.double()
    v, gamma, entry = torch.zeros(6, 8).double(), torch.zeros(6, 8).double(), torch.full((6, 8), torch.inf).double()
    for step in range(2000):
        score = importance * norms[step % 5] ** 0.5
        before, v = v, v + ALPHA * (score / score.mean() - gamma)
        entered = (v >= LAMBDA) & entry.isinf()
        entry[entered] = (step + (LAMBDA - before) / (v - before))[entered]
        gamma = (v.abs() - LAMBDA).clamp(min=0)
    assert entry.isfinite().all()
    torch.testing.assert_close(entry_times(importance, norms, 0.5), entry, rtol=1e-6, atol=1e-6)


def test_a_weight_that_is_zero_never_enters():
    weight, stats, _ = make(num_out=4, num_in=8)
    weight[1, 2] = 0
    times = entry_times(relative_importance(weight), stats.batch_norms, 0.5)
    assert times.isinf().nonzero().tolist() == [[1, 2]]


def test_m_solves_its_quadratic():
    weight, stats, _ = make()
    curvature = Curvature(stats.gram.double())
    c, u = curvature.correlation, weight * curvature.norms
    y, target = torch.rand_like(u), u * keep_largest(u.abs(), PATTERNS[0])
    values, q = curvature.eigen
    turned = (rows @ q for rows in (u @ c, target, y))
    m = (minimise_over_m(*turned, 0.7, values) @ q.T).requires_grad_()
    objective = 0.5 * torch.einsum("oc,cd,od->", u - m, c, u - m) + (y * (m - target)).sum()
    objective = objective + 0.35 * (m - target).square().sum()
    (gradient,) = torch.autograd.grad(objective, m)
    assert gradient.abs().max() < 1e-9 * (u @ c).abs().max()


@pytest.mark.parametrize("pattern", [Pattern(sparsity=0.5, group="row"), Pattern(keep=1, of=2)])
def test_gamma_is_the_best_mask_of_all_with_its_count(pattern):
    generator = torch.Generator().manual_seed(4)
    u, m, y = (torch.randn(1, 6, generator=generator) for _ in range(3))
    rho = 0.3

    def objective(gamma):
        return float((y * (m - u * gamma)).sum() + rho / 2 * (m - u * gamma).square().sum())

    gamma = keep_largest(2 * (m + y / rho) * u - u.square(), pattern)
    masks = [torch.tensor([bits]) for bits in product((0.0, 1.0), repeat=6)]
    if pattern.ratio is None:
        allowed = [mask for mask in masks if mask.sum() == 3]
    else:
        allowed = [mask for mask in masks if (mask.view(3, 2).sum(1) == 1).all()]
    assert objective(gamma.float()) == pytest.approx(min(objective(mask) for mask in allowed))


def test_the_loss_of_a_mask_is_that_of_the_outputs():
    weight, stats, x = make()
    curvature = Curvature(stats.gram.double())
    mask = keep_largest(weight.abs(), PATTERNS[0])
    losses = losses_of(weight, mask, curvature)
    torch.testing.assert_close(2 * losses, (x @ (weight * ~mask).T).square().sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_row_is_worse_than_with_rias_mask_and_the_whole_is_far_better(pattern):
    weight, stats, x = make()

    def errors(mask):
        return (x @ (weight * ~mask).T).square().sum(0)

    ria = choose(weight, stats, pattern, name="ria")
    found = choose(weight, stats, pattern, name="spp_ria")
    if pattern.ratio is not None or pattern.group == "row":
        assert (errors(found) <= errors(ria) * (1 + 1e-6)).all()
    assert errors(found).sum() < 0.85 * errors(ria).sum()


def test_without_correlations_nothing_is_to_be_gained_over_the_largest_terms():
    weight, _, _ = make()
    stats = InputStats(32, ["gram"])
    stats.add(torch.eye(32) * torch.linspace(1, 3, 32))
    found = choose(weight, stats, PATTERNS[0], name="spp_ria")
    assert torch.equal(found, keep_largest((weight * torch.linspace(1, 3, 32)).abs(), PATTERNS[0]))


def test_small_rows_end_near_the_best_of_all_masks():
    weight, stats, _ = make(num_out=12, num_in=10)
    curvature = Curvature(stats.gram.double())
    start = choose(weight, stats, PATTERNS[0], name="ria")
    found = iterate(weight, start, curvature, PATTERNS[0], SCHEDULE)
    masks = torch.tensor([bits for bits in product((False, True), repeat=10) if sum(bits) == 5])
    best = torch.stack([losses_of(row.expand(len(masks), -1), masks, curvature).min() for row in weight])
    assert (found.losses >= best - 1e-9).all()
    assert found.losses.sum() < 1.2 * best.sum()
