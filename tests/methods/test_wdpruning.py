import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spp.dynamics.budget import Budget
from spp.methods.registry import read_method
from spp.methods.units.wdpruning.config import WDPruningConfig
from spp.structure.compact import compact
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs
from spp.structure.masked import MaskedModel

NUM_STEPS = 200
"""Beside the released rules."""


def forward_masks(scores, thresholds, rounds=False):
    masks = {}
    for name, s in scores.items():
        n = len(s)
        count = math.ceil(torch.sigmoid(thresholds[name]).item() * n)
        if rounds and n % 16 == 0:
            count = min(max(16 * math.floor(count / 16 + 0.5), 16), n)
        kept = sorted(range(n), key=lambda j: (-s[j].item(), j))[:count]
        masks[name] = torch.tensor([float(j in kept) for j in range(n)])
    return masks


def loss_at_the_end(masked, images, labels):
    return F.cross_entropy(masked(images), labels)


def reference(masked, batches, target, quirks, loss=loss_at_the_end, num_steps=None):
    """The specification pair by pair: straight-through masks, the penalty by autograd, multipliers by ascent."""
    pairs, num_steps = masked.pairs, num_steps or len(batches)
    scores = {p.name: torch.zeros(p.size, dtype=torch.float64) for p in pairs}
    thresholds = {p.name: torch.tensor(10.0, dtype=torch.float64, requires_grad=True) for p in pairs}
    multipliers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    decay = 0.05 if quirks else 0.0
    first = 20 / num_steps
    opt = torch.optim.AdamW(
        [
            {"params": list(thresholds.values()), "weight_decay": 0.0},
            {"params": list(scores.values()), "weight_decay": decay},
        ]
    )
    ascent = torch.optim.AdamW([multipliers], weight_decay=0.0, maximize=True)
    total = sum(p.size * p.params_per_unit for p in pairs)
    for t, (images, labels) in enumerate(batches):
        masks = forward_masks(scores, thresholds, quirks)
        masked.set_masks(masks)
        loss(masked, images, labels).backward()
        e = (
            sum(torch.sigmoid(thresholds[p.name]).clamp(min=1 / p.size) * p.size * p.params_per_unit for p in pairs)
            / total
        )
        penalty = multipliers[0] * (e - target) + multipliers[1] * (e - target) ** 2
        opt.zero_grad()
        ascent.zero_grad()
        (penalty if e > target else 0 * penalty).backward()
        for p in pairs:
            g = masked.masks[p.name].grad.double()
            scores[p.name].grad = g
            thresholds[p.name].grad += (g * masks[p.name]).sum()
            masked.masks[p.name].grad = None
        c = (1 + math.cos(math.pi * t / num_steps)) / 2
        opt.param_groups[0]["lr"] = 1e-5 + (first - 1e-5) * c
        opt.param_groups[1]["lr"] = 1e-5 + ((1e-3 if quirks else first) - 1e-5) * c
        ascent.param_groups[0]["lr"] = 1e-5 + c * (40000 / num_steps - 1e-5)
        opt.step()
        ascent.step()
    return scores, thresholds, multipliers


# As long as nothing has fallen below the target, which ours lifts again, it is the released rule without quirks, too.
@pytest.mark.parametrize(("quirks", "num_steps"), [(False, 30), (True, NUM_STEPS)])
def test_scores_thresholds_and_multipliers_follow_the_specification(tiny, quirks, num_steps):
    masked, other = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, num_steps)
    search = tiny.search(WDPruningConfig(released_quirks=quirks), masked, num_steps, Budget("params", 0.6))
    if quirks:
        for module in other.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
    scores, thresholds, multipliers = reference(other, batches, search.target, quirks)
    tiny.run(search, batches)
    torch.testing.assert_close(search.scores, torch.cat(list(scores.values())), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(search.thresholds, torch.stack(list(thresholds.values())).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(search.multipliers, multipliers.detach(), rtol=1e-4, atol=1e-6)
    expected = forward_masks(scores, thresholds, quirks)
    chosen = torch.split(search.chosen(), [pair.size for pair in search.pairs])
    for pair, mask in zip(search.pairs, chosen, strict=True):
        assert torch.equal(mask.float(), expected[pair.name])
    dense = sum(p.numel() for p in masked.model.parameters())
    prunable = sum(pair.size * pair.params_per_unit for pair in masked.pairs)
    assert search.target == pytest.approx((0.6 * dense - (dense - prunable)) / prunable)


def test_tokens_stand_still_where_they_are_frozen(tiny):
    for freeze in (False, True):
        config = WDPruningConfig(freeze_tokens=freeze)
        search = tiny.search(config, tiny.masked(), 2, Budget("params", 0.6))
        still = {name for name, _ in search.masked.model.named_parameters() if not search.trains(name)}
        assert still == ({"cls_token", "pos_embed"} if freeze else set())


def test_the_multipliers_bring_the_kept_share_to_the_target_and_rest_there(tiny):
    """Without a task, as in the toy of the specification: e falls to R and l1 and l2 climb until then."""
    masked = tiny.masked()
    num_steps = 200
    search = tiny.search(WDPruningConfig(), masked, num_steps, Budget("params", 0.6))
    shares, multipliers = [], []
    for _ in range(num_steps):
        search.before_forward()
        for mask in search.masks.values():
            mask.grad = torch.zeros_like(mask)
        search.after_backward()
        shares.append(search.kept_share())
        multipliers.append(search.multipliers.clone())
    assert search.target == pytest.approx(0.5, abs=0.2)
    reached = next(t for t, share in enumerate(shares) if share <= search.target)
    assert reached < num_steps / 2
    rising = torch.stack(multipliers[: reached + 1])
    assert (rising.diff(dim=0) >= 0).all()
    assert (rising[-1] > 0).all()
    assert shares[reached:] == pytest.approx([search.target] * (num_steps - reached), abs=0.01)
    # With nothing else to tell the maps apart the keep ratio is nearly the same in all of them.
    ratios = torch.sigmoid(search.thresholds)
    assert float(ratios.max() - ratios.min()) < 0.15


def test_thresholds_below_the_target_are_lifted_together(tiny):
    search = tiny.search(WDPruningConfig(lr=1e-12), tiny.masked(), 10, Budget("params", 0.7))
    search.thresholds.copy_(torch.tensor([0.0, -1.0, -2.0, 1.0, 0.5, -3.0]))
    before = search.thresholds.clone()
    search.before_forward()
    search.after_backward()
    assert search.kept_share() == pytest.approx(search.target, abs=1e-9)
    lifts = search.thresholds - before
    assert float(lifts.min()) > 0
    torch.testing.assert_close(lifts, lifts[0].expand(6))


def test_below_the_target_there_is_no_pull(tiny):
    masked = tiny.masked()
    search = tiny.search(WDPruningConfig(released_quirks=True), masked, 10, Budget("params", 0.9))
    search.thresholds.fill_(-1.0)
    search.multipliers.fill_(5.0)
    search.before_forward()
    search.after_backward()
    assert (search.thresholds == -1.0).all()
    assert (search.multipliers == 5.0).all()


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
@pytest.mark.parametrize(
    ("name", "per_head", "unit"),
    [("vit", False, "channel"), ("swin", False, "channel"), ("vit", True, "head"), ("swin", True, "head")],
)
def test_the_budget_is_filled_and_compact_is_masked(tiny, name, per_head, unit, kind):
    masked = tiny.masked(name, per_head=per_head)
    search = tiny.search(WDPruningConfig(unit=unit), masked, 40, Budget(kind, 0.75))
    tiny.run(search, tiny.batches(masked, 40), lr=0.01)
    masks = search.final_masks()
    if unit == "head":
        for pair in masked.pairs:
            if pair.kind == "qk":
                by_head = masks[pair.name].view(pair.num_heads, -1)
                assert torch.equal(by_head.all(1), by_head.any(1))
                value = masks[pair.name.removesuffix("qk") + "vo"].view(pair.num_heads, -1)
                assert torch.equal(by_head.any(1), value.all(1))
    if kind == "units":
        spent, dense = sum(int(mask.sum()) for mask in masks.values()), sum(pair.size for pair in masked.pairs)
    else:
        spent = getattr(tiny.achieved(masked.model, masks), kind)
        dense = getattr(masked.pairs[0].model_cost, kind)
    assert 0.75 * dense - float(search.bundles.costs(kind).max()) < spent <= 0.75 * dense
    tiny.assert_compact_is_masked(masked, masks)


def test_what_the_search_keeps_is_what_it_hands_back_once_the_target_is_reached(tiny):
    """The common shift of the thresholds only fills the budget; the ranking in a map and the ratios are learned."""
    masked = tiny.masked()
    search = tiny.search(WDPruningConfig(), masked, 80, Budget("params", 0.6))
    tiny.run(search, tiny.batches(masked, 80), lr=0.01)
    final = search.final_masks()
    for pair, mask, scores in zip(
        search.pairs, final.values(), torch.split(search.scores, [p.size for p in search.pairs]), strict=True
    ):
        if not mask.all():
            assert scores[mask].min() >= scores[~mask].max(), pair.name
    shares = torch.tensor([float(mask.float().mean()) for mask in final.values()])
    ratios = torch.sigmoid(search.thresholds)
    shifts = torch.logit(shares.double().clamp(0.02, 0.98)) - torch.logit(ratios)
    assert float(shifts.max() - shifts.min()) < 1.5
    assert float(shifts.abs().max()) < 1.5


def test_layer_norms_have_their_own_epsilon_again_after_a_step(tiny):
    masked = tiny.masked()
    norm = masked.model.blocks[0].norm1
    seen = []
    norm.register_forward_hook(lambda module, args, output: seen.append(module.eps))
    for quirks in (False, True):
        search = tiny.search(WDPruningConfig(released_quirks=quirks), masked, 2, Budget("params", 0.6))
        tiny.run(search, tiny.batches(masked, 1))
        assert norm.eps == 1e-6
    assert seen == [1e-6, 1e-5]


def test_a_restored_search_goes_on_as_if_nothing_had_happened(tiny):
    batches = tiny.batches(tiny.masked(), 20)
    through, before, after = (tiny.search(WDPruningConfig(), tiny.masked(), 20, Budget("macs", 0.6)) for _ in range(3))
    tiny.run(through, batches)
    tiny.run(before, batches[:9])
    after.masked.load_state_dict(before.masked.state_dict())
    after.load_state_dict(before.state_dict())
    tiny.run(before, batches[9:12])
    tiny.run(after, batches[9:])
    for name in ("scores", "thresholds", "multipliers"):
        assert torch.equal(getattr(after, name), getattr(through, name))


def test_heads_need_pairs_per_head(tiny):
    with pytest.raises(ValueError, match=r"model\.per_head: False .*model\.per_head=true"):
        tiny.search(WDPruningConfig(unit="head"), tiny.masked(), 2, Budget("macs", 0.6))


def test_an_impossible_budget_is_refused(tiny):
    with pytest.raises(ValueError, match=r"macs: 0\.05 cannot be reached"):
        tiny.search(WDPruningConfig(), tiny.masked(), 2, Budget("macs", 0.05))
    masked = tiny.masked(per_head=True)
    with pytest.raises(ValueError, match=r"units: 0\.01 cannot be reached"):
        tiny.search(WDPruningConfig(unit="head"), MaskedModel(masked.model, masked.pairs), 2, Budget("units", 0.01))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"unit": "row"}, r"method\.unit: 'row' .*channel, head"),
        ({"lr": 0.0}, r"method\.lr: 0\.0"),
        ({"multiplier_lr": -1.0}, r"method\.multiplier_lr: -1\.0"),
    ],
)
def test_wrong_settings_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        read_method({"name": "wdpruning", **values})


def test_a_search_of_no_steps_has_masks(tiny):
    masked = tiny.masked()
    masks = tiny.search(WDPruningConfig(), masked, 0, Budget("macs", 0.9)).final_masks()
    assert tiny.achieved(masked.model, masks).macs <= 0.9 * masked.pairs[0].model_cost.macs


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
def test_a_shorter_member_has_a_classifier_of_its_own_and_the_size_of_the_whole_networks_share(tiny, kind):
    whole, masked = tiny.build(), tiny.masked()
    dense_cost, dense_units = masked.pairs[0].model_cost, sum(pair.size for pair in masked.pairs)
    search = tiny.search(WDPruningConfig(depth=1), masked, 6, Budget(kind, 0.4))
    batches = tiny.batches(search.masked, 6)
    last_bias = search.masked.model.rest.head.bias.clone()
    optimizer = torch.optim.SGD(search.masked.model.parameters(), lr=0.1)
    for step, (images, labels) in enumerate(batches):
        search.before_forward()
        optimizer.zero_grad()
        scores = search.masked(images)
        (joint,) = search.auxiliary_outputs()
        if step == 0:  # all units are there yet: block 1 and what follows it are the dense network
            torch.testing.assert_close(joint, whole(images))
            assert not torch.allclose(scores, joint, atol=0.1)
        (F.cross_entropy(scores, labels) + F.cross_entropy(joint, labels)).backward()
        search.after_backward()
        optimizer.step()
    assert not torch.equal(search.masked.model.rest.head.bias, last_bias)

    masks = search.final_masks()
    model, kwargs = search.final_network()
    assert kwargs == {"depth": 1}
    assert [name for name, _ in model.named_children() if name == "rest"] == []
    assert len(model.blocks) == 1
    small = compact(model, masks)
    cost = count_cost(small, example_inputs(model))
    if kind == "units":
        spent, asked, unit = sum(int(mask.sum()) for mask in masks.values()), 0.4 * dense_units, 1
    else:
        unit = max(getattr(pair, f"{kind}_per_unit") for pair in search.pairs)
        spent, asked = getattr(cost, kind), 0.4 * getattr(dense_cost, kind)
    assert asked - unit < spent <= asked
    tiny.assert_compact_is_masked(search.masked, masks)


def test_both_heads_are_as_wide_as_the_one_there_was(tiny):
    masked = tiny.masked()
    masked.model.head = nn.Linear(masked.model.head.in_features, 1)  # of a regression
    search = tiny.search(WDPruningConfig(depth=1), masked, 4, Budget("macs", 0.4))
    ((images, _),) = tiny.batches(search.masked, 1)
    outputs = search.masked(images)
    (whole,) = search.auxiliary_outputs()
    assert outputs.shape == whole.shape == (8, 1)
    assert not torch.allclose(outputs, whole)


@pytest.mark.parametrize(
    ("name", "depth", "named"),
    [
        ("vit", 2, r"method\.depth: 2 .*allowed: 1 to 1"),
        ("swin", 1, r"method\.depth: 1 .*SwinTransformer; allowed: null"),
    ],
)
def test_a_depth_that_is_not_there_is_refused(tiny, name, depth, named):
    with pytest.raises(ValueError, match=named):
        tiny.search(WDPruningConfig(depth=depth), tiny.masked(name), 4, Budget("macs", 0.4))


def test_a_short_network_is_no_larger_than_it_is(tiny):
    with pytest.raises(ValueError, match=r"macs: .* cannot be reached"):
        tiny.search(WDPruningConfig(depth=1), tiny.masked(), 4, Budget("macs", 0.9))


def train(search, batches, *, lr=0.0, told=None):
    """Steps under the sum of all heads' losses; the search is told those, or the numbers in `told`."""
    optimizer = torch.optim.SGD(search.masked.model.parameters(), lr=lr)
    for images, labels in batches:
        search.before_forward()
        optimizer.zero_grad()
        losses = [F.cross_entropy(o, labels) for o in (search.masked(images), *search.auxiliary_outputs())]
        search.see_losses(losses if told is None else [torch.tensor(value) for value in told])
        sum(losses).backward()
        search.after_backward()
        optimizer.step()


def test_all_output_heads_drive_the_search_of_the_whole_network(tiny):
    """As released, with a second head behind block 1: its loss joins that at the end, the price is of all blocks."""
    masked, other = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, 40)
    search = tiny.search(WDPruningConfig(exits=[1]), masked, 40, Budget("params", 0.4))
    head = copy.deepcopy(masked.model.exits["1"])
    assert not torch.equal(head.head.weight, masked.model.head.weight)

    def joint_loss(masked, images, labels):
        tokens = []
        handle = masked.model.blocks[0].register_forward_hook(lambda module, args, output: tokens.append(output))
        end = F.cross_entropy(masked(images), labels)
        handle.remove()
        return end + F.cross_entropy(head.head(head.norm(tokens[0])[:, 0]), labels)

    assert search.num_judging_steps == 2
    train(search, batches[:38])
    scores, thresholds, multipliers = reference(other, batches[:38], search.target, False, joint_loss, num_steps=40)
    torch.testing.assert_close(search.thresholds, torch.stack(list(thresholds.values())).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(search.scores, torch.cat(list(scores.values())), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(search.multipliers, multipliers.detach(), rtol=1e-4, atol=1e-6)
    assert float((search.thresholds - 10).abs().max()) > 1
    before = search.scores.clone(), search.thresholds.clone()
    train(search, batches[38:])
    assert torch.equal(search.scores, before[0])
    assert torch.equal(search.thresholds, before[1])
    assert [len(losses) for losses in search.losses.values()] == [1, 1]


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
@pytest.mark.parametrize(("told", "depth"), [((1.0, 2.0), 2), ((2.0, 1.0), 1)])
def test_the_depth_of_the_least_loss_becomes_the_member_and_fills_the_budget(tiny, kind, told, depth):
    whole, masked = tiny.build(), tiny.masked()
    dense_cost, dense_units = masked.pairs[0].model_cost, sum(pair.size for pair in masked.pairs)
    search = tiny.search(WDPruningConfig(exits=[1]), masked, 40, Budget(kind, 0.4))
    train(search, tiny.batches(masked, 40), lr=0.01, told=told)
    exit_head = masked.model.exits["1"].head
    assert search.summary() == {"depth": depth, "losses_by_depth": {"2": told[0], "1": told[1]}}
    masks = search.final_masks()
    model, kwargs = search.final_network()
    assert kwargs == ({} if depth == 2 else {"depth": 1})
    assert (model.head is exit_head) == (depth == 1)
    assert len(model.blocks) == depth
    assert [name for name, _ in model.named_children()] == [name for name, _ in whole.named_children()]
    assert [pair.name for pair in search.pairs] == list(masks)
    if kind == "units":
        spent, asked, unit = sum(int(mask.sum()) for mask in masks.values()), 0.4 * dense_units, 1
    else:
        unit = max(getattr(pair, f"{kind}_per_unit") for pair in search.pairs)
        small = compact(model, masks)
        spent, asked = getattr(count_cost(small, example_inputs(model)), kind), 0.4 * getattr(dense_cost, kind)
    assert asked - unit < spent <= asked
    tiny.assert_compact_is_masked(MaskedModel(model, search.pairs), masks)


def test_a_depth_that_is_said_is_judged_by_nobody_and_one_without_the_size_is_left_out(tiny):
    search = tiny.search(WDPruningConfig(exits=[1], depth=1), tiny.masked(), 20, Budget("macs", 0.4))
    train(search, tiny.batches(search.masked, 20), told=(0.0, 9.0))
    assert search.summary() == {"depth": 1, "losses_by_depth": {}}
    large = tiny.search(WDPruningConfig(exits=[1]), tiny.masked(), 20, Budget("macs", 0.9))
    assert (large.num_judging_steps, large.chosen_candidate().depth) == (0, 2)
    with pytest.raises(ValueError, match=r"macs: .* cannot be reached"):
        tiny.search(WDPruningConfig(exits=[1], depth=1), tiny.masked(), 20, Budget("macs", 0.9))


def test_a_choice_of_the_depth_goes_on_where_it_stopped(tiny):
    config, budget = WDPruningConfig(exits=[1]), Budget("macs", 0.4)
    batches = tiny.batches(tiny.masked(), 20)
    searches = []
    for _ in range(3):
        torch.manual_seed(0)  # of the second output head
        searches.append(tiny.search(config, tiny.masked(), 20, budget))
    through, before, after = searches
    train(through, batches)
    train(before, batches[:19])
    after.masked.load_state_dict(before.masked.state_dict())
    after.load_state_dict(before.state_dict())
    train(after, batches[19:])
    assert after.losses == through.losses
    assert sum(map(len, through.losses.values())) == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"exits": [2]}, r"method\.exits: 2 .*allowed: 1 to 1"),
        ({"exits": [1, 1]}, r"exits: \[1, 1\] .*different numbers"),
        ({"exits": [1], "depth": 2}, r"depth: 2 .*one of the exits \[1\]"),
    ],
)
def test_exits_that_are_not_there_are_refused(tiny, settings, named):
    with pytest.raises(ValueError, match=named):
        tiny.search(WDPruningConfig(**settings), tiny.masked(), 4, Budget("macs", 0.4))
