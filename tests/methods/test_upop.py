import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import Budget, join
from spp.methods.registry import read_method
from spp.methods.units.upop.config import UPopConfig
from spp.structure.compact import compact
from spp.structure.masked import MaskedModel

NUM_STEPS = 200
"""Beside the released rules."""


def reference(masked, batches, p, interval, weight_of, before_activation):
    """The specification, unit by unit, in plain Python: tied masks on queries, keys and values; weights stand still.

    The masks of an MLP multiply before its activation, as released, or behind it.
    """
    model, num_steps = masked.model, len(batches)
    names = [f"blocks.{i}.{part}" for i in range(2) for part in ("attn", "mlp")]
    sizes = {name: (model.get_submodule(name).qkv.out_features // 6 if "attn" in name else 32) for name in names}
    alpha = {name: [1.0] * sizes[name] for name in names}
    G = {name: [0.0] * sizes[name] for name in names}
    history = []
    for t, (images, labels) in enumerate(batches):
        leaves = {name: torch.tensor(values, dtype=torch.float64, requires_grad=True) for name, values in alpha.items()}
        handles = []
        for name, a in leaves.items():
            if "attn" in name:

                def hook(module, args, output, a=a):
                    return (output.unflatten(-1, (3, 2, len(a))) * a.float()).flatten(-3)

                handles.append(model.get_submodule(name).qkv.register_forward_hook(hook))
            elif before_activation:

                def hook(module, args, output, a=a):
                    return output * a.float()

                handles.append(model.get_submodule(name).fc1.register_forward_hook(hook))
            else:

                def hook(module, args, a=a):
                    return (args[0] * a.float(),)

                handles.append(model.get_submodule(name).fc2.register_forward_pre_hook(hook))
        F.cross_entropy(model(images), labels).backward()
        for handle in handles:
            handle.remove()
        for name in names:
            G[name] = [g + d for g, d in zip(G[name], leaves[name].grad.tolist(), strict=True)]
        if not ((t > 0 and t % interval == 0) or t == num_steps - 1):
            continue
        entries = []
        for family in ("attn", "mlp"):
            mine = [(name, j) for name in names if family in name for j in range(sizes[name])]
            values = torch.tensor([G[name][j] for name, j in mine], dtype=torch.float64)
            z = ((values - values.mean()) / values.std()).tolist()
            entries += [(score, name, j) for score, (name, j) in zip(z, mine, strict=True)]
        entries.sort(reverse=True)
        pi = p * math.sqrt((1 - math.cos(math.pi * (t + 1) / num_steps)) / 2)
        total, spent, nearest, threshold = sum(weight_of[name] for _, name, _ in entries), 0.0, math.inf, None
        for score, name, _ in entries:
            spent += weight_of[name]
            if abs(spent - pi * total) < nearest:
                nearest, threshold = abs(spent - pi * total), score
        best = {name: min(score for score, other, _ in entries if other == name) for name in names}
        for score, name, j in entries:
            alpha[name][j] = 1 - pi / p if score > threshold and score != best[name] else 1.0
        history.append((t, {name: list(values) for name, values in alpha.items()}))
    return history


def masked_as(tiny, quirks):
    """A network whose masks are where a search with such a config wants them."""
    masked = tiny.masked()
    return MaskedModel(masked.model, masked.pairs, at_first_maps=UPopConfig(released_quirks=quirks).masks_first_maps)


@pytest.mark.parametrize("quirks", [False, True])
def test_masks_follow_the_specification(tiny, quirks):
    masked = masked_as(tiny, quirks)
    batches = tiny.batches(masked, NUM_STEPS)
    attention = 12.0 if quirks else (2 * 2 * 17 + 2 * 33) / 33
    weight_of = {
        f"blocks.{i}.{part}": {"attn": attention, "mlp": 1.0}[part] for i in range(2) for part in ("attn", "mlp")
    }
    config = UPopConfig(interval=40, released_quirks=quirks)
    search = tiny.search(config, masked, NUM_STEPS, Budget("params", 0.6))
    dense = sum(p.numel() for p in masked.model.parameters())
    prunable = sum(pair.size * pair.params_per_unit for pair in masked.pairs)
    p = 0.4 * dense / prunable
    assert search.share_removed == pytest.approx(p)
    expected = reference(masked, batches, p, 40, weight_of, quirks)
    seen = []

    def record(search):
        if search.num_steps_taken - 1 in (40, 80, 120, 160, 199):
            seen.append({name: mask.detach().clone() for name, mask in search.masks.items()})

    tiny.run(search, batches, after_step=record)
    assert [t for t, _ in expected] == [40, 80, 120, 160, 199]
    for got, (_, alpha) in list(zip(seen, expected, strict=True))[:-1]:
        for i in range(2):
            a = torch.tensor(alpha[f"blocks.{i}.attn"])
            torch.testing.assert_close(got[f"blocks.{i}.attn.vo"], a)
            torch.testing.assert_close(got[f"blocks.{i}.attn.qk"], a if quirks else a**2)
            torch.testing.assert_close(got[f"blocks.{i}.mlp"], torch.tensor(alpha[f"blocks.{i}.mlp"]))
    # The last choice fills the budget: it may take up the units at the threshold that the rule just misses.
    final, rule = seen[-1], expected[-1][1]
    for name, mask in final.items():
        assert set(mask.tolist()) <= {0.0, 1.0}
        assert torch.equal(mask.bool(), search.final_masks()[name])
    if not quirks:
        by_rule = [rule[pair.name.removesuffix(".qk").removesuffix(".vo")] for pair in masked.pairs]
        differing = join(masked.pairs, final) - torch.tensor(list(itertools.chain(*by_rule)), dtype=torch.float64)
        assert int(differing.abs().sum()) <= 4


def test_the_weight_of_an_attention_unit_is_all_that_the_quirk_changes_in_a_choice(tiny):
    runs = []
    for quirks in (False, True):
        masked = tiny.masked()
        search = tiny.search(UPopConfig(interval=4, released_quirks=quirks), masked, 8, Budget("params", 0.6))
        tiny.run(search, tiny.batches(masked, 5))
        runs.append(search)
    mended, released = runs
    released.accumulated = mended.accumulated
    assert (mended.pruned(0.2) != released.pruned(0.2)).any()
    is_mlp = torch.tensor([group.kind == "mlp" for group in mended.bundles.groups])[mended.bundles.group_of]
    assert set(released.weights()[~is_mlp].tolist()) == {12.0}
    ratio = mended.weights()[~is_mlp] / mended.weights()[is_mlp].mean()
    torch.testing.assert_close(ratio, torch.full_like(ratio, (2 * 2 * 17 + 2 * 33) / 33))
    mended.weights = released.weights
    assert torch.equal(mended.pruned(0.2), released.pruned(0.2))


def test_the_released_compaction_loses_the_query_key_value_biases_and_nothing_else(tiny):
    masked = tiny.masked()
    masks = {pair.name: torch.arange(pair.size) % 3 > 0 for pair in masked.pairs}
    del masks["blocks.1.attn.qk"], masks["blocks.1.attn.vo"]  # the released code replaces also what it need not cut
    members = [compact(masked.model, masks) for _ in range(4)]
    random_state = torch.get_rng_state()
    for member, quirks, seed in zip(members, (False, True, True, True), (0, 0, 0, 1), strict=True):
        assert tiny.finish_member(UPopConfig(released_quirks=quirks), member, seed) == {}
    assert torch.equal(torch.get_rng_state(), random_state)
    mended, released, again, other = (member.state_dict() for member in members)
    tiny.assert_compact_is_masked(
        masked, {**masks, **{f"blocks.1.attn.{kind}": torch.ones(8).bool() for kind in ("qk", "vo")}}
    )
    biases = {f"blocks.{i}.attn.qkv.bias" for i in range(2)}
    for name, value in mended.items():
        assert torch.equal(released[name], again[name])
        assert torch.equal(released[name], value) == (name not in biases)
        assert torch.equal(released[name], other[name]) == (name not in biases)
    drawn = torch.cat([released[name] for name in sorted(biases)])
    assert drawn.abs().max() <= 16**-0.5
    assert drawn.std() == pytest.approx(16**-0.5 / 3**0.5, rel=0.2)
    assert (drawn != torch.cat([mended[name] for name in sorted(biases)])).all()


def test_rows_that_fill_up_a_head_have_no_bias(tiny):
    masked = tiny.masked(per_head=True)
    uneven = torch.ones(16, dtype=torch.bool)
    uneven[:5] = False
    small = compact(masked.model, {f"blocks.0.attn.{kind}": uneven for kind in ("qk", "vo")})
    tiny.finish_member(UPopConfig(released_quirks=True), small, 0)
    qkv = small.blocks[0].attn.qkv
    is_filling = ~qkv.weight.any(dim=1)
    assert int(is_filling.sum()) == 3 * 5
    assert torch.equal(qkv.bias == 0, is_filling)


@pytest.mark.parametrize("kind", ["macs", "params", "units"])
@pytest.mark.parametrize(
    ("name", "per_head", "tied"), [("vit", False, True), ("vit", True, True), ("swin", False, False)]
)
def test_the_budget_is_filled_and_compact_is_masked(tiny, name, per_head, tied, kind):
    masked = tiny.masked(name, per_head=per_head)
    search = tiny.search(UPopConfig(interval=2, tied=tied), masked, 6, Budget(kind, 0.7))
    tiny.run(search, tiny.batches(masked, 6), lr=0.01)
    masks = search.final_masks()
    assert all(mask.dtype == torch.bool and mask.any() for mask in masks.values())
    if tied:
        assert all(torch.equal(masks[f"blocks.{i}.attn.qk"], masks[f"blocks.{i}.attn.vo"]) for i in range(2))
    if kind == "units":
        spent, dense = sum(int(mask.sum()) for mask in masks.values()), sum(pair.size for pair in masked.pairs)
    else:
        cost = tiny.achieved(masked.model, masks)
        spent, dense = getattr(cost, kind), getattr(masked.pairs[0].model_cost, kind)
    per_bundle = search.bundles.costs(kind) * (2 if per_head else 1)
    assert 0.7 * dense - float(per_bundle.max()) < spent <= 0.7 * dense
    tiny.assert_compact_is_masked(masked, masks)


def test_a_restored_search_goes_on_as_if_nothing_had_happened(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 10)
    through = tiny.search(UPopConfig(interval=2), masked, 10, Budget("macs", 0.5))
    tiny.run(through, batches)
    first, second = tiny.masked(), tiny.masked()
    before = tiny.search(UPopConfig(interval=2), first, 10, Budget("macs", 0.5))
    tiny.run(before, batches[:5])
    second.load_state_dict(first.state_dict())
    after = tiny.search(UPopConfig(interval=2), second, 10, Budget("macs", 0.5))
    after.load_state_dict(before.state_dict())
    tiny.run(after, batches[5:])
    assert torch.equal(after.accumulated, through.accumulated)
    assert all(torch.equal(after.masks[name], mask) for name, mask in through.masks.items())


def test_the_dense_budget_prunes_nothing(tiny):
    masked = tiny.masked()
    search = tiny.search(UPopConfig(), masked, 3, Budget("macs", 1.0))
    tiny.run(search, tiny.batches(masked, 3))
    assert all(mask.all() for mask in search.final_masks().values())
    assert all((mask == 1).all() for mask in search.masks.values())


def test_interval_is_the_steps_of_one_percent(tiny):
    masked = tiny.masked()
    search = tiny.search(UPopConfig(), masked, 2000, Budget("params", 0.6))
    assert search.interval == round(20 / search.share_removed)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"interval": 0}, r"method\.interval: 0"), ({"min_units": -1}, r"method\.min_units: -1")],
)
def test_wrong_settings_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        read_method({"name": "upop", **values})


def test_a_search_of_no_steps_has_masks(tiny):
    masked = tiny.masked()
    masks = tiny.search(UPopConfig(), masked, 0, Budget("macs", 0.9)).final_masks()
    assert tiny.achieved(masked.model, masks).macs <= 0.9 * masked.pairs[0].model_cost.macs
