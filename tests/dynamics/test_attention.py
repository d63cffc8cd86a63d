"""The price of heads against the compact model as it is counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from spp.dynamics.attention import attentions, by_group, switches
from spp.dynamics.budget import Budget, budget_range, cost_of, prefix_masks, unit_costs
from spp.dynamics.order import unit_order
from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


def build(name):
    torch.manual_seed(0)
    if name == "vit":
        return VisionTransformer(img_size=8, patch_size=4, embed_dim=18, depth=2, num_heads=3, num_classes=3).eval()
    return SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2, 1), num_heads=(2, 4), num_classes=3
    ).eval()


MODELS = {name: build(name) for name in ("vit", "swin")}
for each in MODELS.values():
    with torch.no_grad():
        for parameter in each.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(parameter[0].numel(), 4) ** 0.5)


def draw_masks(draw, pairs):
    """Units by chance; some heads, and sometimes all of an attention, are switched off for one kind or both."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    masks = {}
    for pair in pairs:
        keep = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
        heads = pair.num_heads if pair.per_head else 1
        mask = torch.rand(heads, pair.size // heads, generator=generator) < keep
        mask &= torch.rand(heads, 1, generator=generator) < 0.6
        masks[pair.name] = mask.flatten()
    return masks


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("per_head", [False, True])
@given(data=st.data())
@settings(max_examples=25)
def test_the_cost_of_masks_is_what_is_counted_and_the_compact_model_is_the_masked_one(name, per_head, data):
    model = MODELS[name]
    pairs = find_pairs(model, per_head=per_head)
    masks = draw_masks(data.draw, pairs)
    small = compact(model, masks)
    example = example_inputs(model)["x"]
    counted = count_cost(small, example)
    assert cost_of(pairs, masks) == counted
    masked = MaskedModel(model, pairs)
    masked.set_masks(masks)
    with torch.no_grad():
        images = torch.randn(2, *example.shape[1:])
        torch.testing.assert_close(small(images), masked(images), atol=1e-5, rtol=1e-5)
        rebuilt = shrink_like(model, widths_of(masks, pairs))
        rebuilt.load_state_dict(small.state_dict(), strict=True)
        assert torch.equal(rebuilt(images), small(images))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["macs", "params"])
@given(seed=st.integers(0, 2**31), min_units=st.integers(0, 2), position=st.floats(0, 1))
@settings(max_examples=15)
def test_a_budget_is_met_by_the_model_to_within_one_head_or_one_channel_of_all(name, kind, seed, min_units, position):
    model = MODELS[name]
    pairs = find_pairs(model, per_head=True)
    key = torch.rand(sum(pair.size for pair in pairs), generator=torch.Generator().manual_seed(seed)).double()
    order = unit_order(pairs, key, key, min_units=min_units)
    lowest, highest = budget_range(pairs, kind, min_units)
    size = lowest + position * (highest - lowest)
    masks = prefix_masks(pairs, order, Budget(kind, size), min_units)
    achieved = getattr(count_cost(compact(model, masks), example_inputs(model)), kind)
    per_unit = dict(zip((pair.name for pair in pairs), split_first(pairs, kind), strict=True))
    head = max(a.dense_cost / a.num_groups for a in attentions(pairs, kind))
    channel = max(cost * pair.num_heads for pair, cost in zip(pairs, per_unit.values(), strict=True))
    assert -1e-6 <= size - achieved < max(head, channel) or all(mask.all() for mask in masks.values())


def split_first(pairs, kind):
    costs = unit_costs(pairs, kind)
    starts = torch.tensor([0, *(pair.size for pair in pairs[:-1])]).cumsum(0)
    return costs[starts].tolist()


def test_one_attention_by_hand():
    pairs = [
        Pair("a.qk", "qk", 4, 10, 100.0, 2, True),
        Pair("a.vo", "vo", 6, 7, 70.0, 2, True, params_per_head=5),
    ]
    (attention,) = attentions(pairs, "params")
    assert (attention.num_groups, attention.qk_width, attention.vo_width) == (2, 2, 3)
    assert attention.dense_cost == 2 * (2 * 10 + 3 * 7 + 5)
    counts = torch.tensor([[2, 1], [2, 1], [2, 1], [0, 0]]), torch.tensor([[0, 0], [0, 3], [1, 3], [1, 0]])
    assert attention.cost(*counts).tolist() == [0, 10 + 21 + 5, 2 * (20 + 21 + 5), 7 + 5]
    assert attention.largest_cost(1, 1, is_vo_shared=False) == 10 + 7 + 5
    # Three value channels cost most as two in one head and one in the other: (2 + 2) * 7 against 3 * 7.
    assert attention.largest_cost(2, 3, is_vo_shared=False) == 2 * (20 + 14 + 5)
    assert switches(pairs).tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    assert by_group(pairs[1], torch.tensor([0, 5]), 2).tolist() == [[True, False], [False, True]]


def test_a_query_key_unit_waits_for_a_value_of_its_head():
    pairs = [
        Pair("a.qk", "qk", 4, 1, 1.0, 2, True),
        Pair("a.vo", "vo", 4, 1, 1.0, 2, True),
        Pair("a.mlp", "mlp", 1, 1, 1.0),
    ]
    key = torch.tensor([8, 9, 0, 1, 4, 6, 5, 7, 3]).double()
    # By key: qk 2 3 (head 1), mlp 8, vo 4 (head 0), vo 6 (head 1), vo 5 7, qk 0 1 (head 0).
    assert unit_order(pairs, key, key, min_units=0).tolist() == [8, 4, 6, 2, 3, 5, 7, 0, 1]
    # The floor: vo 4 is the best value, so that of the queries the best of head 0 is unit 0.
    assert unit_order(pairs, key, key, min_units=1).tolist() == [8, 4, 0, 6, 2, 3, 5, 7, 1]
    shared = [
        Pair("a.qk", "qk", 2, 1, 1.0, 2),
        Pair("a.vo", "vo", 2, 1, 1.0, 2),
    ]
    key = torch.tensor([0.0, 3.0, 1.0, 2.0])
    assert unit_order(shared, key, key, min_units=0).tolist() == [2, 0, 3, 1]
    assert unit_order(shared, key, key, min_units=1).tolist() == [0, 2, 3, 1]
