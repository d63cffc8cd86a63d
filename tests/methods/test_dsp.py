import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.dynamics.budget import Budget
from spp.methods.registry import read_method
from spp.methods.units.dsp.config import DSPConfig
from spp.methods.units.dsp.search import relaxed_top, straight_through_top

NUM_STEPS = 200
"""Beside the released rules."""
TINY = torch.finfo(torch.float64).tiny


def reference(r, num_kept, temperature):
    """Entry by entry, in plain Python."""
    r, gates = list(r), [0.0] * len(r)
    for _ in range(num_kept):
        largest = max(r)
        weights = [math.exp((x - largest) / temperature) for x in r]
        draw = [weight / sum(weights) for weight in weights]
        gates = [g + p for g, p in zip(gates, draw, strict=True)]
        r = [x + math.log(max(1 - p, TINY)) for x, p in zip(r, draw, strict=True)]
    return gates


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 30), st.floats(-8, 3), st.data())
def test_gates_follow_the_specification_and_add_up_to_k(seed, n, log_temperature, data):
    num_kept = data.draw(st.integers(1, n - 1))
    scores = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gates = relaxed_top(scores, num_kept, 10**log_temperature)
    assert float(gates.sum()) == pytest.approx(num_kept, abs=1e-9)
    assert float(gates.min()) >= 0
    expected = reference(scores.tolist(), num_kept, 10**log_temperature)
    assert gates.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 40), st.data())
def test_at_temperature_zero_gates_are_the_hard_choice_with_finite_gradients(seed, n, data):
    num_kept = data.draw(st.integers(1, n - 1))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, dtype=torch.float64, generator=generator).requires_grad_()
    gates = relaxed_top(scores, num_kept, 1e-8)
    hard = torch.zeros(n, dtype=torch.float64)
    hard[scores.topk(num_kept).indices] = 1.0
    torch.testing.assert_close(gates.detach(), hard, rtol=0, atol=1e-9)
    (gates * torch.randn(n, dtype=torch.float64, generator=generator)).sum().backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("temperature", [1e-8, 1.0, 1000.0])
def test_all_or_none_leave_nothing_to_choose(temperature):
    scores = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert relaxed_top(scores, 7, temperature).tolist() == [1.0] * 7
    assert relaxed_top(scores, 0, temperature).tolist() == [0.0] * 7
    assert straight_through_top(scores, 7).tolist() == [1.0] * 7


def test_the_gradient_of_the_relaxed_choice_is_exact():
    scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: relaxed_top(r, 3, 0.7), (scores,))


def test_only_the_released_straight_through_choice_drops_ties():
    weights = torch.tensor([0.5, 2.0, 0.5, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    assert straight_through_top(weights, 2).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert straight_through_top(weights, 2, drops_ties=True).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    distinct = torch.arange(5.0)
    for num_kept in range(6):
        released = straight_through_top(distinct, num_kept, drops_ties=True)
        assert torch.equal(released, straight_through_top(distinct, num_kept))
    (straight_through_top(weights, 2) * torch.arange(5.0)).sum().backward()
    assert weights.grad.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("straight_through", [False, True])
def test_weights_follow_a_plain_loop(tiny, straight_through):
    """Gates on the heads' values by autograd through the model, Adam with a linear decay, the same noise."""
    config = DSPConfig(straight_through=straight_through, first_temperature=2.0, last_temperature=0.1)
    masked = tiny.masked(per_head=True)
    batches = tiny.batches(masked, NUM_STEPS)
    torch.manual_seed(3)
    search = tiny.search(config, masked, NUM_STEPS, Budget("macs", 0.85))
    weights = search.weights.detach().clone().requires_grad_()
    noise = torch.Generator()
    noise.set_state(search._generator.get_state())
    adam = torch.optim.Adam([weights])
    tiny.run(search, batches)
    other = tiny.build()
    for t, (images, labels) in enumerate(batches):
        num_kept = search.num_kept()
        if straight_through:
            hard = torch.zeros(4, dtype=torch.float64)
            hard[weights.topk(num_kept).indices] = 1.0
            gates = hard + weights - weights.detach()
        else:
            u = torch.rand(4, dtype=torch.float64, generator=noise)
            r, gates = weights - torch.log(-torch.log(u)), torch.zeros(4, dtype=torch.float64)
            tau = 2.0 * (0.1 / 2.0) ** min(1.0, t / (NUM_STEPS * 2 / 3))
            for _ in range(num_kept):
                p = torch.softmax(r / tau, 0)
                gates, r = gates + p, r + torch.log((1 - p).clamp(min=TINY))
        handles = []
        for layer, block in enumerate(other.blocks):
            factor = gates[2 * layer : 2 * layer + 2].repeat_interleave(8).float()
            hook = lambda module, args, factor=factor: (args[0] * factor,)  # noqa: E731
            handles.append(block.attn.proj.register_forward_pre_hook(hook))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(other(images), labels).backward()
        for handle in handles:
            handle.remove()
        adam.param_groups[0]["lr"] = 0.5 * (1 - t / NUM_STEPS)
        adam.step()
    torch.testing.assert_close(search.weights, weights, rtol=1e-4, atol=1e-5)


def test_pipelined_trains_the_network_first_and_then_the_weights_of_the_heads_alone(tiny):
    """The second part is a joint search of so many steps on the network that the first part has left, frozen."""
    config = DSPConfig(weights_first=0.75, first_temperature=2.0, last_temperature=0.1)
    masked, other = tiny.masked(per_head=True), tiny.masked(per_head=True)
    batches = tiny.batches(masked, 12)
    torch.manual_seed(3)
    search = tiny.search(config, masked, 12, Budget("macs", 0.85))
    first = search.weights.detach().clone()
    tiny.run(search, batches[:9], lr=0.05)
    assert torch.equal(search.weights, first)
    trained = {name: value.detach().clone() for name, value in masked.model.named_parameters()}
    assert not torch.equal(trained["head.weight"], other.model.get_parameter("head.weight"))
    tiny.run(search, batches[9:], lr=0.05)
    assert all(torch.equal(masked.model.get_parameter(name), value) for name, value in trained.items())
    other.model.load_state_dict(trained)
    torch.manual_seed(3)
    joint = tiny.search(DSPConfig(first_temperature=2.0, last_temperature=0.1), other, 3, Budget("macs", 0.85))
    tiny.run(joint, batches[9:])
    assert torch.equal(search.weights, joint.weights)
    assert not torch.equal(search.weights, first)


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
@pytest.mark.parametrize(("name", "value"), [("vit", 0.8), ("vit", 0.9), ("swin", 0.8), ("swin", 0.9)])
def test_the_budget_is_met_within_one_head_and_compact_is_masked(tiny, name, value, kind):
    torch.manual_seed(1)
    masked = tiny.masked(name, per_head=True)
    search = tiny.search(DSPConfig(), masked, 6, Budget(kind, value))
    tiny.run(search, tiny.batches(masked, 6), lr=0.01)
    masks = search.final_masks()
    num_heads = 0
    for pair in masked.pairs:
        if pair.kind == "mlp":
            assert masks[pair.name].all()
            continue
        by_head = masks[pair.name].view(pair.num_heads, -1)
        assert torch.equal(by_head.all(1), by_head.any(1))
        num_heads += int(by_head.all(1).sum()) if pair.kind == "vo" else 0
        assert torch.equal(masks[pair.name], masks[f"{pair.owner}.qk"])
    assert num_heads == search.num_kept()
    if kind == "units":
        spent, dense = sum(int(mask.sum()) for mask in masks.values()), sum(pair.size for pair in masked.pairs)
    else:
        spent = getattr(tiny.achieved(masked.model, masks), kind)
        dense = getattr(masked.pairs[0].model_cost, kind)
    assert value * dense - float(search.bundles.costs(kind).max()) < spent <= value * dense
    tiny.assert_compact_is_masked(masked, masks)


def test_gates_of_a_step_add_up_to_k_and_end_hard(tiny):
    masked = tiny.masked(per_head=True)
    search = tiny.search(DSPConfig(), masked, 9, Budget("macs", 0.8))
    sums, last = [], {}

    def record(search):
        gates = [search.masks[f"blocks.{layer}.attn.vo"].detach().view(2, 8) for layer in range(2)]
        assert all((gate == gate[:, :1]).all() for gate in gates)
        assert all((search.masks[f"blocks.{layer}.attn.qk"] == 1).all() for layer in range(2))
        last["gates"] = torch.cat([gate[:, 0] for gate in gates])
        sums.append(float(last["gates"].sum()))

    tiny.run(search, tiny.batches(masked, 9), after_step=record)
    assert sums == pytest.approx([search.num_kept()] * 9, abs=1e-5)
    assert last["gates"].sort().values.tolist() == pytest.approx(
        [0.0] * (4 - search.num_kept()) + [1.0] * search.num_kept()
    )


def test_temperature_falls_geometrically_over_the_cool_down(tiny):
    search = tiny.search(DSPConfig(cooldown=0.5), tiny.masked(per_head=True), 100, Budget("macs", 0.9))
    seen = []
    for step in (0, 25, 50, 99):
        search.num_steps_taken = step
        seen.append(search.temperature())
    assert seen == pytest.approx([1e3, 10**-2.5, 1e-8, 1e-8])


def test_a_restored_search_goes_on_as_if_nothing_had_happened(tiny):
    batches = tiny.batches(tiny.masked(per_head=True), 10)
    runs = []
    for seed in (0, 0, 7):
        torch.manual_seed(seed)
        runs.append(tiny.search(DSPConfig(), tiny.masked(per_head=True), 10, Budget("macs", 0.8)))
    through, before, after = runs
    assert torch.equal(through.weights, before.weights)
    assert not torch.equal(through.weights, after.weights)
    tiny.run(through, batches)
    tiny.run(before, batches[:4])
    after.load_state_dict(before.state_dict())
    torch.manual_seed(99)
    tiny.run(after, batches[4:])
    assert torch.equal(after.weights, through.weights)


def test_what_heads_cannot_reach_is_refused(tiny):
    with pytest.raises(ValueError, match=r"macs: 0\.3 cannot be reached; allowed: .* of the dense model"):
        tiny.search(DSPConfig(), tiny.masked(per_head=True), 2, Budget("macs", 0.3))
    with pytest.raises(ValueError, match=r"model\.per_head: False"):
        tiny.search(DSPConfig(), tiny.masked(), 2, Budget("macs", 0.8))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lr": 0.0}, r"method\.lr: 0\.0"),
        ({"cooldown": 1.5}, r"method\.cooldown: 1\.5"),
        ({"last_temperature": 0.0}, r"method\.last_temperature: 0\.0"),
    ],
)
def test_wrong_settings_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        read_method({"name": "dsp", **values})


def test_a_search_of_no_steps_has_masks(tiny):
    masked = tiny.masked(per_head=True)
    masks = tiny.search(DSPConfig(), masked, 0, Budget("macs", 0.9)).final_masks()
    assert tiny.achieved(masked.model, masks).macs <= 0.9 * masked.pairs[0].model_cost.macs
