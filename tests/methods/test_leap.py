import math

import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import Budget
from spp.methods.registry import read_method
from spp.methods.units.leap.config import LEAPConfig

GRANULARITIES = ["structured", "head", "unstructured", "row", "block", "hybrid"]


NUM_STEPS = 200
"""Beside the released rules."""


def top(scores, count):
    kept = sorted(range(len(scores)), key=lambda j: (-scores[j].item(), j))[:count]
    return torch.tensor([float(j in kept) for j in range(len(scores))])


def not_zero(model, masks, weights):
    """Parameters that stay: all of the model but those of dropped units, and those zeroed one by one."""
    alive = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, keep in weights.items():
        alive[name] &= keep
    for name, mask in masks.items():
        module, drop = name.rpartition(".")[0], ~mask
        if name.endswith("mlp"):
            alive[f"{name}.fc1.weight"][drop] = False
            alive[f"{name}.fc1.bias"][drop] = False
            alive[f"{name}.fc2.weight"][:, drop] = False
            continue
        channels = drop.repeat(2)
        rows = torch.zeros(48, dtype=torch.bool)
        rows[:32] = channels.repeat(2) if name.endswith("qk") else False
        rows[32:] = channels if name.endswith("vo") else False
        alive[f"{module}.qkv.weight"][rows] = False
        alive[f"{module}.qkv.bias"][rows] = False
        if name.endswith("vo"):
            alive[f"{module}.proj.weight"][:, channels] = False
    return sum(int(mask.sum()) for mask in alive.values())


def test_structured_scores_and_sigmas_follow_the_specification(tiny):
    masked, other = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, NUM_STEPS)
    config = LEAPConfig(temperature=2.0, lr=0.16, lambda_max=300.0, lambda_min=5.0, warmup_share=0.1, freeze_at=1.0)
    search = tiny.search(config, masked, NUM_STEPS + 40, Budget("macs", 0.7))
    pairs, target = other.pairs, search.target
    scores = {
        p.name: s for p, s in zip(pairs, torch.split(search.scores.clone(), [p.size for p in pairs]), strict=True)
    }
    sigmas = {p.name: torch.tensor(20.0, dtype=torch.float64, requires_grad=True) for p in pairs}
    adam = torch.optim.Adam(
        [{"params": list(sigmas.values()), "lr": 0.16}, {"params": list(scores.values()), "lr": 0.01}]
    )
    warmup, num_steps = 24, NUM_STEPS + 40
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: step / warmup if step < warmup else (num_steps - step) / (num_steps - warmup)
    )
    total = sum(p.size * p.macs_per_unit for p in pairs)
    for images, labels in batches:
        masks = {
            p.name: top(scores[p.name], math.ceil(torch.sigmoid(sigmas[p.name].detach() / 2) * p.size)) for p in pairs
        }
        other.set_masks(masks)
        F.cross_entropy(other(images), labels).backward()
        R = (
            sum(torch.sigmoid(sigmas[p.name] / 2).clamp(min=1 / p.size) * p.size * p.macs_per_unit for p in pairs)
            / total
        )
        loss = (R - target) ** 2 if target < R else 0 * R
        adam.zero_grad()
        (max(300.0 * loss.item() / (1 - target) ** 2, 5.0) * loss).backward()
        for p in pairs:
            g = other.masks[p.name].grad.double()
            scores[p.name].grad = g
            sigmas[p.name].grad += (g * masks[p.name]).sum() / 2
            other.masks[p.name].grad = None
        adam.step()
        schedule.step()
    tiny.run(search, batches)
    assert not search.frozen
    torch.testing.assert_close(search.scores, torch.cat(list(scores.values())), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(search.sigmas, torch.stack(list(sigmas.values())).detach(), rtol=1e-4, atol=1e-5)
    for pair, mask in zip(pairs, torch.split(search.chosen().units, [p.size for p in pairs]), strict=True):
        count = math.ceil(torch.sigmoid(sigmas[pair.name].detach() / 2) * pair.size)
        assert torch.equal(mask.float(), top(scores[pair.name], count))
        assert int(mask.sum()) == count


def test_scores_of_single_weights_and_sigmas_follow_the_specification(tiny):
    """As above, with a score for each weight, which gets the weight times its gradient; the weights stand still."""
    masked, other = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, NUM_STEPS)
    config = LEAPConfig(granularity="unstructured", lr=0.16, lambda_max=300.0, lambda_min=5.0, freeze_at=1.0)
    search = tiny.search(config, masked, NUM_STEPS + 40, Budget("params", 0.7))
    parts, num_pairs, num_steps = search.parts, len(masked.pairs), NUM_STEPS + 40
    warmup = round(config.warmup_share * num_steps)
    scores = [scores.clone() for scores in search.weight_scores]
    sigmas = torch.full((len(parts),), 10.0, dtype=torch.float64, requires_grad=True)
    sizes = torch.tensor([part.size for part in parts], dtype=torch.float64)
    adam = torch.optim.Adam([{"params": [sigmas], "lr": 0.16}, {"params": scores, "lr": config.score_lr}])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: step / warmup if step < warmup else (num_steps - step) / (num_steps - warmup)
    )
    for images, labels in batches:
        counts = torch.ceil(torch.sigmoid(sigmas.detach()) * sizes).int().tolist()
        kept = [torch.zeros(part.size) for part in parts]
        for mask, own, count in zip(kept, scores, counts, strict=True):
            mask[own.flatten().argsort(descending=True)[:count]] = 1
        masks = [mask.view_as(own).requires_grad_() for mask, own in zip(kept, scores, strict=True)]
        used = dict(other.model.named_parameters())
        for part, mask in zip(parts, masks, strict=True):
            full = torch.ones_like(used[part.name]).index_copy(part.dim, part.index, mask.movedim(0, part.dim))
            used[part.name] = used[part.name] * full
        loss = F.cross_entropy(torch.func.functional_call(other.model, used, (images,)), labels)
        gradients = torch.autograd.grad(loss, masks)
        R = (torch.sigmoid(sigmas) * sizes).sum() / sizes.sum()
        penalty = (R - search.target).clamp(min=0) ** 2
        adam.zero_grad()
        (max(300.0 * penalty.item() / (1 - search.target) ** 2, 5.0) * penalty).backward()
        for number, (own, mask, gradient) in enumerate(zip(scores, masks, gradients, strict=True)):
            own.grad = gradient
            sigmas.grad[number] += (gradient * mask).sum().item()
        adam.step()
        schedule.step()
    tiny.run(search, batches)
    assert not search.frozen
    assert search.remaining() < 0.9
    torch.testing.assert_close(search.sigmas[num_pairs:], sigmas.detach(), rtol=1e-3, atol=1e-3)
    for found, expected in zip(search.weight_scores, scores, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_a_step_on_single_weights_is_one_on_masked_weights(tiny):
    """The weights' gradient is that through the mask, the scores' one that of the mask, and the weights come back."""
    masked, other = tiny.masked(), tiny.masked()
    search = tiny.search(LEAPConfig(granularity="unstructured", freeze_at=1.0), masked, 50, Budget("params", 0.5))
    generator = torch.Generator().manual_seed(0)
    search.weight_scores = [torch.rand(s.shape, generator=generator) for s in search.weight_scores]
    search.sigmas.fill_(0.0)
    ((images, labels),) = tiny.batches(masked, 1)
    before = {name: p.detach().clone() for name, p in masked.model.named_parameters()}
    expected = {}
    for name, parameter in other.model.named_parameters():
        expected[name] = torch.ones_like(parameter)
    for part, scores in zip(search.parts, search.weight_scores, strict=True):
        kept = torch.zeros(scores.numel())
        kept[scores.flatten().argsort(descending=True)[: math.ceil(scores.numel() / 2)]] = 1
        expected[part.name].index_copy_(part.dim, part.index, kept.view(scores.shape).movedim(0, part.dim))
    leaves = {name: mask.clone().requires_grad_() for name, mask in expected.items()}
    weights = {name: p.detach().clone().requires_grad_() for name, p in other.model.named_parameters()}
    output = torch.func.functional_call(other.model, {name: weights[name] * leaves[name] for name in leaves}, (images,))
    F.cross_entropy(output, labels).backward()
    seen = {}
    search._move = lambda choice, gradient, weight_gradients: seen.update(own=weight_gradients)
    tiny.run(search, [(images, labels)])
    for name, parameter in masked.model.named_parameters():
        assert torch.equal(parameter, before[name])
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-6)
    assert sum(part.size for part in search.parts) == sum(
        p.numel() for name, p in before.items() if p.ndim == 2 and "blocks" in name
    )
    for part, gradient in zip(search.parts, seen["own"], strict=True):
        torch.testing.assert_close(gradient, part.gather(leaves[part.name].grad), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("granularity", ["structured", "head", "unstructured", "hybrid"])
def test_the_regulariser_behaves_as_specified(tiny, granularity):
    config = LEAPConfig(granularity=granularity)
    search = tiny.search(config, tiny.masked(per_head=config.needs_heads), 10, Budget("params", 0.6))
    search.sigmas.fill_(1e4)
    assert search.remaining() == 1.0
    remaining, strengths = [], []
    for logit in (9.0, 5.0, 3.0, 2.0, 1.0):
        search.sigmas.fill_(logit)
        remaining.append(search.remaining())
        strengths.append(search.strength((search.remaining() - search.target) ** 2))
    assert remaining == sorted(remaining, reverse=True)
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] == pytest.approx(20000, rel=0.01)
    search.sigmas.fill_(-3.0)
    assert search.remaining() < search.target
    value, gradient = search.regulariser()
    assert value == 0
    assert (gradient == 0).all()
    search.sigmas.fill_(2.0)
    value, gradient = search.regulariser()
    is_learned = search._logits() != 0
    if granularity == "unstructured":
        is_learned[: len(search.pairs)] = False
    assert (gradient[is_learned] > 0).all()
    assert (gradient[~is_learned] == 0).all()


def test_the_remaining_share_of_both_is_that_of_the_kept_weights(tiny):
    """At ratios that leave whole numbers everywhere, R is what counting the masks gives."""
    search = tiny.search(LEAPConfig(granularity="hybrid"), tiny.masked(), 10, Budget("params", 0.6))
    search.sigmas.copy_(torch.logit(torch.tensor([0.5] * 6 + [0.25] * len(search.parts))).double())
    kept = sum(part.size * 0.5 * 0.25 for part in search.parts)
    assert search.remaining() == pytest.approx(kept / sum(part.size for part in search.parts))


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
@pytest.mark.parametrize(("name", "value"), [("vit", 0.6), ("vit", 0.8), ("swin", 0.7)])
def test_the_budget_is_filled_by_units_and_compact_is_masked(tiny, name, value, kind):
    torch.manual_seed(0)
    masked = tiny.masked(name)
    search = tiny.search(LEAPConfig(), masked, 30, Budget(kind, value))
    tiny.run(search, tiny.batches(masked, 30), lr=0.01)
    masks = search.final_masks()
    assert search.frozen
    assert search.final_weights() == {}
    assert all(torch.equal(masks[name], mask.bool()) for name, mask in search.masks.items())
    if kind == "units":
        spent, dense = sum(int(mask.sum()) for mask in masks.values()), sum(pair.size for pair in masked.pairs)
    else:
        spent = getattr(tiny.achieved(masked.model, masks), kind)
        dense = getattr(masked.pairs[0].model_cost, kind)
    assert value * dense - float(search.bundles.costs(kind).max()) < spent <= value * dense
    tiny.assert_compact_is_masked(masked, masks)


@pytest.mark.parametrize("granularity", ["unstructured", "hybrid"])
@pytest.mark.parametrize("value", [0.3, 0.6])
def test_the_budget_is_filled_by_single_weights(tiny, granularity, value):
    torch.manual_seed(0)
    masked = tiny.masked()
    search = tiny.search(LEAPConfig(granularity=granularity), masked, 30, Budget("params", value))
    tiny.run(search, tiny.batches(masked, 30), lr=0.01)
    masks, weights = search.final_masks(), search.final_weights()
    assert all(mask.all() for mask in masks.values()) == (granularity == "unstructured")
    dense = sum(p.numel() for p in masked.model.parameters())
    assert value * dense - 1 < not_zero(masked.model, masks, weights) <= value * dense
    search.before_forward()
    during = {name: p.detach().clone() for name, p in masked.model.named_parameters()}
    search.after_backward()
    with torch.no_grad():
        for name, keep in weights.items():
            masked.model.get_parameter(name).mul_(keep)
    for name, parameter in masked.model.named_parameters():
        assert torch.equal(parameter, during[name])
    tiny.assert_compact_is_masked(masked, masks)


def test_single_weights_work_on_swin(tiny):
    masked = tiny.masked("swin")
    search = tiny.search(LEAPConfig(granularity="hybrid"), masked, 6, Budget("params", 0.5))
    tiny.run(search, tiny.batches(masked, 6), lr=0.01)
    assert search._excess(0.0) is not None
    assert all(mask.any() for mask in search.final_masks().values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scores_of_single_weights_go_where_the_weights_go(tiny):
    """As in a stage, which builds the search before its trainer moves the network."""
    masked = tiny.masked()
    batches = [(images.cuda(), labels.cuda()) for images, labels in tiny.batches(masked, 12)]
    search = tiny.search(LEAPConfig(granularity="hybrid"), masked, 12, Budget("params", 0.5))
    masked.cuda()
    tiny.run(search, batches, lr=0.01)
    masks, weights = search.final_masks(), search.final_weights()
    dense = sum(p.numel() for p in masked.model.parameters())
    kept = not_zero(masked.model, masks, {name: keep.cpu() for name, keep in weights.items()})
    assert 0.5 * dense - 1 < kept <= 0.5 * dense


def test_the_temperature_leaves_the_balance_of_task_and_regulariser_alone(tiny):
    """At any temperature the same ratios come of the same batches, and the target is reached before the deadline."""
    ratios, num_frozen = [], []
    for temperature in (1.0, 16.0):
        torch.manual_seed(0)
        search = tiny.search(LEAPConfig(temperature=temperature), tiny.masked(), 60, Budget("macs", 0.6))
        num_steps_to_freeze = 0
        for batch in tiny.batches(search.masked, 60):
            tiny.run(search, [batch], lr=0.01)
            num_steps_to_freeze += not search.frozen
        ratios.append(search.ratios())
        num_frozen.append(60 - num_steps_to_freeze)
        assert search.remaining() - search.target < 2e-3
    torch.testing.assert_close(*ratios, rtol=1e-6, atol=1e-6)
    assert num_frozen[0] == num_frozen[1] > 0.2 * 60 + 1


def test_ratios_freeze_at_the_target_and_at_the_latest_in_time(tiny):
    masked = tiny.masked()
    search = tiny.search(LEAPConfig(), masked, 100, Budget("params", 0.6))
    for logit, is_near in ((3.0, False), (-1.0, True)):
        search.sigmas.fill_(logit)
        tiny.run(search, tiny.batches(masked, 1))
        assert search.frozen == is_near
    sigmas, scores = search.sigmas.clone(), search.scores.clone()
    tiny.run(search, tiny.batches(masked, 3))
    assert torch.equal(search.sigmas, sigmas)
    assert torch.equal(search.scores, scores)
    late = tiny.search(LEAPConfig(freeze_at=0.5, lr=1e-9), tiny.masked(), 8, Budget("params", 0.6))
    frozen = []
    tiny.run(late, tiny.batches(masked, 8), after_step=lambda search: frozen.append(search.frozen))
    assert frozen == [False] * 3 + [True] * 5


def test_only_the_quirks_start_equal_and_weaken_close_to_the_target(tiny):
    mended, released = (
        tiny.search(LEAPConfig(released_quirks=quirks), tiny.masked(), 10, Budget("params", 0.6))
        for quirks in (False, True)
    )
    assert (released.scores == 0).all()
    assert len(mended.scores.unique()) == len(mended.scores)
    assert float(mended.scores.abs().max()) < 1e-5
    for penalty in (1e-5, 2.9e-4, 3.1e-4, 1e-2, 0.2):
        near = penalty < 3e-4
        assert (mended.strength(penalty) != released.strength(penalty)) == near
        assert not near or (released.strength(penalty), mended.strength(penalty)) == (10, 50)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_restored_search_goes_on_as_if_nothing_had_happened(tiny, granularity):
    batches = tiny.batches(tiny.masked(), 14)
    config = LEAPConfig(granularity=granularity, freeze_at=0.7)
    runs = []
    for seed in (0, 0, 5):
        torch.manual_seed(seed)
        runs.append(tiny.search(config, tiny.masked(per_head=config.needs_heads), 14, Budget("params", 0.75)))
    through, before, after = runs
    tiny.run(through, batches, lr=0.01)
    tiny.run(before, batches[:11], lr=0.01)
    after.masked.load_state_dict(before.masked.state_dict())
    after.load_state_dict(before.state_dict())
    assert after.frozen
    tiny.run(after, batches[11:], lr=0.01)
    assert torch.equal(after.sigmas, through.sigmas)
    for name, parameter in through.masked.named_parameters():
        assert torch.equal(after.masked.get_parameter(name), parameter)
    assert all(torch.equal(after.final_masks()[name], mask) for name, mask in through.final_masks().items())
    assert all(torch.equal(after.final_weights()[name], mask) for name, mask in through.final_weights().items())


@pytest.mark.parametrize("granularity", ["unstructured", "hybrid"])
def test_single_weights_take_budgets_of_params_only(tiny, granularity):
    with pytest.raises(ValueError, match=r"budget\.kind: macs .*allowed: params"):
        tiny.search(LEAPConfig(granularity=granularity), tiny.masked(), 2, Budget("macs", 0.5))
    with pytest.raises(ValueError, match=r"params: 0\.01 cannot be reached"):
        tiny.search(LEAPConfig(granularity=granularity), tiny.masked(), 2, Budget("params", 0.01))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (
            {"granularity": "column"},
            r"method\.granularity: 'column' .*structured, head, unstructured, row, block, hybrid",
        ),
        ({"temperature": 0.0}, r"method\.temperature: 0\.0"),
        ({"freeze_at": 0.0}, r"method\.freeze_at: 0\.0"),
        ({"lr": -1.0}, r"method\.lr: -1\.0"),
    ],
)
def test_wrong_settings_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        read_method({"name": "leap", **values})


def test_a_search_of_no_steps_has_masks(tiny):
    masked = tiny.masked()
    masks = tiny.search(LEAPConfig(), masked, 0, Budget("macs", 0.9)).final_masks()
    assert tiny.achieved(masked.model, masks).macs <= 0.9 * masked.pairs[0].model_cost.macs


def head_search(tiny, num_steps=30, budget=None):
    masked = tiny.masked(per_head=True)
    config = LEAPConfig(granularity="head", freeze_at=0.5)
    assert config.needs_heads
    return tiny.search(config, masked, num_steps, budget or Budget("macs", 0.6))


def test_queries_keys_and_values_of_a_head_share_one_mask(tiny):
    search = head_search(tiny)
    tiny.run(search, tiny.batches(search.masked, 30), lr=0.01)
    masks = search.final_masks()
    for name, mask in masks.items():
        if name.endswith(".vo"):
            heads = mask.view(2, -1)
            assert ((heads.all(1)) | (~heads.any(1))).all()
            assert torch.equal(masks[name.replace(".vo", ".qk")].view(2, -1)[:, 0], heads[:, 0])
    cost = tiny.achieved(search.masked.model, masks)
    dense = search.pairs[0].model_cost
    dearest = float(search.bundles.costs("macs").max())
    assert 0.6 * dense.macs - dearest < cost.macs <= 0.6 * dense.macs
    tiny.assert_compact_is_masked(search.masked, masks)


def test_a_head_gets_the_gradients_of_all_its_channels(tiny):
    search = head_search(tiny)
    batches = tiny.batches(search.masked, 1)
    seen = {}

    def look():
        seen.update({name: mask.grad.clone() for name, mask in search.masks.items()})

    search.before_forward()
    F.cross_entropy(search.masked(batches[0][0]), batches[0][1]).backward()
    look()
    search.after_backward()
    first = seen["blocks.0.attn.qk"].view(2, -1).sum(1) + seen["blocks.0.attn.vo"].view(2, -1).sum(1)
    torch.testing.assert_close(search.scores.grad[:2].float(), first, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("granularity", "tile"), [("block", (16, 16)), ("row", None)])
def test_whole_tiles_of_a_map_go_until_the_parameters_fit(tiny, granularity, tile):
    masked = tiny.masked()
    search = tiny.search(LEAPConfig(granularity=granularity, freeze_at=0.5), masked, 40, Budget("params", 0.8))
    tiny.run(search, tiny.batches(masked, 40), lr=0.01)
    assert all(mask.all() for mask in search.final_masks().values())
    kept = search.final_weights()
    zeros = 0
    for name, mask in kept.items():
        high, wide = tile or (1, mask.shape[1])
        tiles = mask.view(mask.shape[0] // high, high, -1, wide).sum((1, 3))
        assert ((tiles == 0) | (tiles == high * wide)).all(), name
        zeros += int((~mask).sum())
    dense = search.pairs[0].model_cost.params
    largest = 256 if tile else max(mask.shape[1] for mask in kept.values())
    assert 0.8 * dense - largest < dense - zeros <= 0.8 * dense
    assert any(0 < int(mask.sum()) < mask.numel() for mask in kept.values())


def test_a_tile_gets_the_gradients_of_all_its_weights(tiny):
    masked = tiny.masked()
    search = tiny.search(LEAPConfig(granularity="block"), masked, 10, Budget("params", 0.8))
    images, labels = tiny.batches(masked, 1)[0]
    search.before_forward()
    F.cross_entropy(masked(images), labels).backward()
    weight = masked.model.get_parameter("blocks.0.mlp.fc1.weight")
    wanted = (weight.grad * weight.detach()).view(2, 16, 1, 16).sum((1, 3))
    search.after_backward()
    number = [part.name for part in search.parts].index("blocks.0.mlp.fc1.weight")
    torch.testing.assert_close(search.weight_scores[number].grad, wanted)


def test_maps_without_whole_tiles_are_refused(tiny):
    swin = tiny.masked("swin")
    with pytest.raises(ValueError, match=r"^method.granularity: tiles of 16 x 16 do not fill .*; use unstr"):
        tiny.search(LEAPConfig(granularity="block"), swin, 10, Budget("params", 0.8))
