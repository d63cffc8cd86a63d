"""The linears of one layer together: shared inputs, orders folded into a network, axes, and what stops it."""

import pytest
import torch

from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.sparsity.config import SparsityConfig
from spp.sparsity.importance import relative_importance_of_activations
from spp.sparsity.permutation import TiedHeads, value_rows
from spp.sparsity.prune_layer import prune_and_forget, prune_linears, statistics_needed
from spp.sparsity.statistics import InputStats

WIDTH, HIDDEN, HEADS = 16, 24, TiedHeads(num_groups=2, repeats=2)
INPUT_OF = {"q": "attention", "v": "attention", "o": "values", "gate": "mlp", "up": "mlp", "down": "hidden"}


def make_layer(dtype=torch.float64, seed=0):
    """A layer with grouped values and a gated MLP; what attention does between v and o is left out."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": (32, WIDTH), "v": (16, WIDTH), "o": (WIDTH, 32), "gate": (HIDDEN, WIDTH), "up": (HIDDEN, WIDTH)}
    shapes["down"] = (WIDTH, HIDDEN)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def run_layer(weights, x, stats=None):
    def note(name, value):
        if stats is not None:
            stats[name].add(value)
        return value

    note("attention", x)
    values = (x @ weights["v"].T).view(len(x), 2, 1, 8).expand(-1, 2, 2, 8).reshape(len(x), 32)
    h = x + note("values", values.tanh()) @ weights["o"].T
    note("mlp", h)
    inner = note("hidden", (h @ weights["gate"].T).sigmoid() * (h @ weights["up"].T))
    return h + inner @ weights["down"].T


@pytest.fixture
def calibrated():
    weights = make_layer()
    x = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = x * torch.linspace(0.1, 3, WIDTH, dtype=torch.float64)
    sizes = {"attention": WIDTH, "values": 32, "mlp": WIDTH, "hidden": HIDDEN}
    stats = {name: InputStats(size, ("norms", "gram", "batches")) for name, size in sizes.items()}
    run_layer(weights, x, stats)
    return weights, stats, x


def prune(weights, stats, *, method="ria", settings=None, shares=None, heads=None, **axes):
    config = read_weight_method({"name": method, **(settings or {})})
    resolved = config.resolve(SparsityConfig(**axes))
    return prune_linears(weights, stats, INPUT_OF, load_weight_method(config), resolved, shares, heads)


@pytest.mark.parametrize("update", ["none", "obs", "least_squares"])
@pytest.mark.parametrize("permutation", ["none", "heuristic", "assignment"])
@pytest.mark.parametrize("method", ["magnitude", "ri", "wanda", "ria", "sparsegpt", "spp_ria"])
def test_every_method_goes_with_every_order_and_update(calibrated, method, permutation, update):
    weights, stats, _ = calibrated
    results = prune(weights, stats, method=method, keep=2, of=4, permutation=permutation, update=update)
    assert list(results) == list(weights)
    for name, result in results.items():
        assert (result.permutation is None) == (permutation == "none")
        mask = result.mask if result.permutation is None else result.mask[:, result.permutation]
        assert (mask.view(len(mask), -1, 4).sum(2) == 2).all()
        assert (result.weight is None) == (update == "none")
        if result.weight is not None:
            assert not result.weight[~result.mask].any()
            assert result.figures["relative_error"] < result.figures["masked_error"]
        assert result.figures["seconds"] >= 0
        removed = weights[name] * ~result.mask
        gram, total = stats[INPUT_OF[name]].gram.double(), weights[name]
        expected = torch.trace(removed @ gram @ removed.T) / torch.trace(total @ gram @ total.T)
        assert result.figures["relative_error" if update == "none" else "masked_error"] == pytest.approx(
            float(expected)
        )
    if permutation != "none":
        assert torch.equal(results["q"].permutation, results["v"].permutation)
        assert torch.equal(results["gate"].permutation, results["up"].permutation)


def test_a_permutation_gives_masks_that_retain_more_and_linears_may_have_their_own(calibrated):
    weights, stats, _ = calibrated

    def retained(**axes):
        results = prune(weights, stats, keep=2, of=4, **axes)
        norms = {name: stats[INPUT_OF[name]].norms for name in results}
        scores = {name: relative_importance_of_activations(weights[name], norms[name], 0.5) for name in results}
        return {name: float((scores[name] * result.mask).sum()) for name, result in results.items()}

    plain, shared = retained(), retained(permutation="assignment")
    own = retained(permutation="assignment", shared_permutation=False)
    assert shared["q"] + shared["v"] >= plain["q"] + plain["v"]
    assert all(shared[name] >= plain[name] for name in ("o", "down"))
    assert own["q"] + own["v"] >= shared["q"] + shared["v"]


def test_a_folded_order_gives_the_same_outputs_and_consecutive_groups(calibrated):
    weights, stats, x = calibrated
    axes = {"keep": 2, "of": 4, "permutation": "assignment", "update": "least_squares"}
    results = prune(weights, stats, heads={"values": HEADS}, **axes)
    pruned = {name: result.weight for name, result in results.items()}
    folded = dict(pruned)
    order = results["down"].permutation
    folded["gate"], folded["up"], folded["down"] = pruned["gate"][order], pruned["up"][order], pruned["down"][:, order]
    order = results["o"].permutation
    folded["v"], folded["o"] = pruned["v"][value_rows(order, HEADS)], pruned["o"][:, order]
    torch.testing.assert_close(run_layer(folded, x), run_layer(pruned, x), rtol=1e-9, atol=1e-9)
    for name in ("o", "down"):
        assert ((folded[name].view(WIDTH, -1, 4) != 0).sum(2) <= 2).all()
        assert not torch.equal(folded[name], pruned[name])


def test_each_linear_may_have_a_share_of_its_own_and_the_axes_have_the_share_of_all(calibrated):
    weights, stats, _ = calibrated
    shares = dict(zip(weights, (0.0, 0.25, 0.5, 0.5, 0.75, 0.875), strict=True))
    results = prune(weights, stats, group="row", shares=shares)
    for name, result in results.items():
        assert (result.mask.sum(1) == round((1 - shares[name]) * result.mask.shape[1])).all()
    assert all(float(r.mask.double().mean()) == 0.75 for r in prune(weights, stats, sparsity=0.25).values())


def test_input_by_input_it_is_the_same_and_no_statistics_are_left(calibrated):
    weights, stats, _ = calibrated
    config = read_weight_method({"name": "sparsegpt"})
    axes, method = config.resolve(SparsityConfig()), load_weight_method(config)
    together, left = prune(weights, stats, method="sparsegpt", heads={"values": HEADS}), dict(stats)
    apart = prune_and_forget(weights, left, INPUT_OF, method, axes, 0.5, {"values": HEADS})
    assert left == {}
    assert list(apart) == list(weights)
    assert all(torch.equal(apart[name].weight, together[name].weight) for name in weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_worked_on_in_single_and_not_changed(calibrated, dtype):
    _, stats, _ = calibrated
    weights = make_layer(dtype)
    before = {name: weight.clone() for name, weight in weights.items()}
    results = prune(weights, stats, method="sparsegpt")
    single = prune({name: weight.float() for name, weight in weights.items()}, stats, method="sparsegpt")
    for name, result in results.items():
        assert torch.equal(result.weight, single[name].weight.to(dtype))
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_what_has_to_be_collected_follows_from_method_and_update():
    def needed(method, update, **settings):
        config = read_weight_method({"name": method, **settings})
        axes = config.resolve(SparsityConfig(update=update))
        return statistics_needed(load_weight_method(config), axes)

    assert needed("magnitude", None) == needed("ri", "none") == set()
    assert needed("wanda", None) == needed("ria", None) == {"norms"}
    assert needed("ria", "obs") == {"norms", "gram"}
    assert needed("sparsegpt", None) == needed("magnitude", "least_squares") == needed("spp_ria", None) == {"gram"}
    assert needed("spp_ria", None, drive="minibatch") == {"norms", "batches"}


def test_methods_without_data_need_no_statistics_and_others_say_so():
    weights = make_layer()
    assert prune(weights, {}, method="ri", keep=2, of=4, permutation="assignment")["q"].mask.any()
    with pytest.raises(ValueError, match=r"^stats: None is not allowed with this method; allowed: InputStats"):
        prune(weights, {}, method="wanda")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stop_with_the_name_of_the_linear(calibrated, bad):
    weights, stats, _ = calibrated
    broken = {**weights, "up": weights["up"].clone()}
    broken["up"][3, 4] = bad
    with pytest.raises(ValueError, match=r"^up: its weights hold NaN or infinity; allowed: finite numbers"):
        prune(broken, stats)
    stats["hidden"].add(torch.full((1, HIDDEN), bad))
    with pytest.raises(ValueError, match=r"^down: the statistics of its input hold NaN or infinity"):
        prune(weights, stats)


def test_shapes_that_do_not_fit_stop_with_the_name_of_the_linear(calibrated):
    weights, stats, _ = calibrated
    with pytest.raises(ValueError, match=r"^q: its 16 inputs are not allowed with of=5; allowed: a multiple of 5"):
        prune(weights, stats, keep=2, of=5)
    with pytest.raises(ValueError, match=r"^down: statistics of 16 features are not allowed; allowed: 24"):
        prune(weights, {**stats, "hidden": stats["mlp"]})
