"""The counter against closed forms, and every unit's price against a recount without that unit."""

from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from spp.structure.compact import compact
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs, find_pairs

KEEP_FRACTIONS = (1.0, 0.75, 0.5)
# name: (channels, params, prunable params), from vision-methods.md 0.1 and 0.2.
DEIT = {
    "deit_tiny_patch16_224": (192, 5_717_416, 5_324_544),
    "deit_small_patch16_224": (384, 22_050_664, 21_265_920),
    "deit_base_patch16_224": (768, 86_567_656, 84_999_168),
}


def deit_macs(channels: int, keep: float) -> float:
    """vision-methods.md 0.1 without its LayerNorm term."""
    tokens, depth = 197, 12
    blocks = depth * (12 * channels**2 * tokens + 2 * tokens**2 * channels) * keep
    return blocks + 196 * 768 * channels + 1000 * channels


def swin_tiny_macs(keep: float) -> float:
    """Patch embedding, four stages of windows of 49 tokens, three patch mergings, head."""
    sides, channels, depths = (56, 28, 14, 7), (96, 192, 384, 768), (2, 2, 6, 2)
    stages = zip(sides, channels, depths, strict=True)
    blocks = sum(depth * side**2 * (12 * c**2 + 2 * 49 * c) for side, c, depth in stages)
    mergings = sum(
        side**2 * (4 * before) * after for side, (before, after) in zip(sides[1:], pairwise(channels), strict=True)
    )
    return blocks * keep + 56**2 * (4 * 4 * 3) * 96 + mergings + 768 * 1000


def prefix_masks(pairs, keep):
    return {pair.name: torch.arange(pair.size) < keep * pair.size for pair in pairs}


@pytest.mark.parametrize("name", DEIT)
def test_deit_dense_and_uniformly_kept(name):
    channels, params, prunable = DEIT[name]
    model = timm.create_model(name).eval()
    pairs = find_pairs(model)
    for keep in KEEP_FRACTIONS:
        cost = count_cost(compact(model, prefix_masks(pairs, keep)), torch.zeros(1, 3, 224, 224))
        assert cost.params == params - (1 - keep) * prunable
        assert cost.macs == deit_macs(channels, keep)
    assert pairs[0].model_cost == Cost(deit_macs(channels, 1.0), params)


def test_swin_tiny_dense_and_uniformly_kept():
    model = timm.create_model("swin_tiny_patch4_window7_224").eval()
    pairs = find_pairs(model)
    for keep in KEEP_FRACTIONS:
        cost = count_cost(compact(model, prefix_masks(pairs, keep)), torch.zeros(1, 3, 224, 224))
        assert cost.params == 28_288_354 - (1 - keep) * 25_909_440
        assert cost.macs == swin_tiny_macs(keep)


def test_one_unit_less_costs_its_price_less(model):
    pairs = find_pairs(model)
    dense = pairs[0].model_cost
    for pair in pairs:
        mask = torch.ones(pair.size, dtype=torch.bool)
        mask[pair.size // 2] = False
        cost = count_cost(compact(model, {pair.name: mask}), example_inputs(model))
        assert dense.params - cost.params == pair.params_per_unit, pair.name
        assert dense.macs - cost.macs == pair.macs_per_unit, pair.name


def test_one_unit_less_in_every_head_costs_the_prices_per_head_less(model):
    pairs = find_pairs(model, per_head=True)
    dense = pairs[0].model_cost
    for pair in pairs:
        mask = torch.ones(pair.num_heads, pair.size // pair.num_heads, dtype=torch.bool)
        for head in range(pair.num_heads):
            mask[head, head] = False
        cost = count_cost(compact(model, {pair.name: mask.flatten()}), example_inputs(model))
        assert dense.params - cost.params == pair.num_heads * pair.params_per_unit, pair.name
        assert dense.macs - cost.macs == pair.num_heads * pair.macs_per_unit, pair.name


@pytest.mark.parametrize("per_head", [False, True])
def test_without_any_unit_the_fixed_rest_is_left(model, per_head):
    pairs = find_pairs(model, per_head=per_head)
    dense = pairs[0].model_cost
    rest = count_cost(
        compact(model, {pair.name: torch.zeros(pair.size, dtype=torch.bool) for pair in pairs}),
        example_inputs(model),
    )
    prunable = sum(pair.size * pair.params_per_unit + pair.num_heads * pair.params_per_head for pair in pairs)
    assert dense.params - rest.params == prunable
    assert dense.macs - rest.macs == sum(pair.size * pair.macs_per_unit for pair in pairs)


def test_a_head_without_values_costs_nothing(model):
    """The counter against the dense cost less the head, its column of the bias table included."""
    pairs = {pair.name: pair for pair in find_pairs(model, per_head=True)}
    dense = next(iter(pairs.values())).model_cost
    for name, pair in pairs.items():
        if pair.kind != "vo":
            continue
        mask = torch.arange(pair.size) // (pair.size // pair.num_heads) != 1
        cost = count_cost(compact(model, {name: mask}), example_inputs(model))
        query_key = pairs[f"{pair.owner}.qk"]
        width = pair.size // pair.num_heads
        per_unit = pair.params_per_unit + query_key.params_per_unit
        assert dense.params - cost.params == width * per_unit + pair.params_per_head
        assert dense.macs - cost.macs == width * (pair.macs_per_unit + query_key.macs_per_unit)
    tables = {int(pair.params_per_head) for pair in pairs.values() if pair.kind == "vo"}
    assert tables == {
        len(module.relative_position_bias_table)
        for module in model.modules()
        if hasattr(module, "relative_position_bias_table")
    } or tables == {0}


def test_cost_is_per_sample_whatever_the_batch(build):
    model = build("deit")
    assert count_cost(model, torch.zeros(3, 3, 16, 16)) == count_cost(model, torch.zeros(1, 3, 16, 16))


def test_convolution_and_linear_by_hand():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 10))
    cost = count_cost(model, torch.zeros(2, 4, 8, 8))
    assert cost.macs == 36 * 6 * (4 // 2) * 9 + 6 * 36 * 10
    assert cost.params == 6 * 2 * 9 + 6 + 12 + 6 * 36 * 10 + 10


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_both_products_of_torchs_own_attention_count():
    tokens, channels = 5, 8
    cost = count_cost(SelfAttention(), torch.zeros(2, tokens, channels))
    assert cost.macs == tokens * 4 * channels**2 + 2 * tokens**2 * channels


def test_parameters_count_frozen_and_once():
    layer = nn.Linear(4, 4, bias=False).requires_grad_(False)
    assert count_cost(nn.Sequential(layer, layer), torch.zeros(1, 4)) == Cost(macs=32.0, params=16)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(0.5)))
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    count_cost(model, torch.ones(2, 4))
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    with pytest.raises(RuntimeError):
        count_cost(model, torch.ones(2, 5))
    assert model.training
    assert not model[1].training


def test_a_latent_query_that_can_be_trained_is_counted():
    """The pooling of SigLIP views a parameter under no_grad."""
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2, class_token=False, global_pool="map"
    )
    model.head.weight.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    trained = count_cost(model, torch.zeros(2, 3, 16, 16))
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert trained == count_cost(model.requires_grad_(False), torch.zeros(2, 3, 16, 16))
    assert trained == find_pairs(model)[0].model_cost
