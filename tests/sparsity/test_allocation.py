import numpy as np
import pytest
import torch

from spp.sparsity.allocation import NUM_LEVELS, allocate, fisher_curve, outlier_share

SIZES = {"a": 100, "b": 300, "c": 50}


def mean(shares):
    return sum(SIZES[name] * share for name, share in shares.items()) / sum(SIZES.values())


def curves(*scales):
    return {name: scale * torch.linspace(0, 1, NUM_LEVELS) ** 2 for name, scale in zip(SIZES, scales, strict=True)}


@pytest.mark.parametrize("cap", [0.0, 0.05, 0.1, 0.6])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "figures"),
    [("uniform", {}), ("owl", {"a": 0.01, "b": 0.02, "c": 0.2}), ("fisher", curves(1.0, 3.0, 0.1))],
)
def test_the_weighted_mean_is_exact_and_no_share_leaves_its_bounds(kind, figures, sparsity, cap):
    shares = allocate(kind, figures, SIZES, sparsity, cap)
    assert list(shares) == list(SIZES)
    assert mean(shares) == pytest.approx(sparsity, abs=1e-12)
    assert all(max(0, sparsity - cap) - 1e-12 <= share <= min(1, sparsity + cap) + 1e-12 for share in shares.values())


def test_more_outliers_keep_more_in_proportion():
    shares = allocate("owl", {"a": 0.01, "b": 0.02, "c": 0.03}, dict.fromkeys(SIZES, 7), 0.5, 0.08)
    assert shares["a"] - shares["b"] == pytest.approx(0.08)
    assert shares["b"] - shares["c"] == pytest.approx(0.08)
    assert len(set(allocate("owl", dict.fromkeys(SIZES, 0.1), SIZES, 0.5, 0.08).values())) == 1


def test_all_layers_stop_at_one_price():
    shares = allocate("fisher", curves(1.0, 2.0, 0.6), SIZES, 0.5, 0.49)
    prices = [scale * shares[name] ** 2 for name, scale in zip(SIZES, (1.0, 2.0, 0.6), strict=True)]
    # Curves are straight lines between their levels in the logarithm of the price.
    np.testing.assert_allclose(prices, prices[0], rtol=0.02)
    assert shares["c"] > shares["a"] > shares["b"]


def test_one_price_is_the_cheapest_of_all_shares_with_that_mean(linear):
    layers = {name: linear(16, 16, seed=seed) for seed, name in enumerate(SIZES)}
    squares = {name: torch.rand(16, generator=torch.Generator().manual_seed(3)) * 10**n for n, name in enumerate(SIZES)}
    figures = {name: fisher_curve(fc.weight, fc.stats(), squares[name].double()) for name, fc in layers.items()}

    def loss(shares):
        total = 0.0
        for name, fc in layers.items():
            price = (fc.weight * fc.x.norm(dim=0)).square() / len(fc.x) / 2 * squares[name].double()[:, None]
            rows = (fc.weight * fc.x.norm(dim=0)).square().argsort(dim=1)
            num = round(16 * shares[name])
            total += float(price.gather(1, rows[:, :num]).sum())
        return total

    sizes = dict.fromkeys(SIZES, 256)
    shares = allocate("fisher", figures, sizes, 0.5, 0.4)
    assert loss(shares) < 0.8 * loss(dict.fromkeys(SIZES, 0.5))


def test_the_share_of_outliers_counts_scores_far_above_the_mean(linear):
    fc = linear(10, 10)
    weight = torch.ones(10, 10, dtype=torch.float64)
    weight[3] = 100
    weight = weight / fc.stats().norms
    assert outlier_share(weight, fc.stats()) == pytest.approx(0.1)


def test_a_layer_without_a_figure_is_named():
    with pytest.raises(ValueError, match=r"^allocation: owl has no finite figure of b; allowed: one for every layer"):
        allocate("owl", {"a": 0.1, "c": 0.1}, SIZES, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"^allocation: 'flop' is not allowed"):
        allocate("flop", {}, SIZES, 0.5, 0.1)
