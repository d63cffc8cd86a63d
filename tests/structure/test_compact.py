"""The compact model against the masked one."""

import copy
import json

import pytest
import torch
from timm.layers.attention import Attention
from torch import nn

from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.modeling_spp import fused_attention

KINDS = ("qk", "vo", "mlp")


def masked_at(model, pairs, masks):
    masked = MaskedModel(model, pairs)
    masked.set_masks(masks)
    return masked


def assert_same(model, pairs, masks, x, **kwargs):
    with torch.no_grad():
        expected = masked_at(model, pairs, masks)(x, **kwargs)
        torch.testing.assert_close(compact(model, masks)(x, **kwargs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_masked_model(model, images, random_masks, per_head, seed):
    pairs = find_pairs(model, per_head=per_head)
    masks = random_masks(pairs, seed, keep=0.25 + 0.25 * seed)
    assert_same(model, pairs, masks, images(model))
    with torch.no_grad():
        assert (masked_at(model, pairs, masks)(images(model)) - model(images(model))).abs().max() > 0.01


@pytest.mark.parametrize("per_head", [False, True])
def test_equals_the_masked_model_in_training_under_one_seed(model, images, random_masks, per_head):
    pairs = find_pairs(model, per_head=per_head)
    masks = random_masks(pairs, seed=0)
    masks[pairs[0].name][:] = False  # written-out attention must draw its dropout as the fused one does
    model.train()
    x = images(model)
    outputs = []
    for forward in (masked_at(model, pairs, masks), compact(model, masks)):
        torch.manual_seed(5)
        outputs.append([forward(x) for _ in range(3)])
    for expected, actual in zip(*outputs, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs[0][0], outputs[0][1], atol=1e-2)


@pytest.mark.parametrize("emptied", [("qk",), ("vo",), ("mlp",), ("qk", "vo"), KINDS])
def test_zero_widths(model, images, random_masks, emptied):
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=1)
    for pair in pairs:
        if pair.kind in emptied:
            masks[pair.name][:] = False
    assert_same(model, pairs, masks, images(model))
    small = compact(model, masks)
    small(images(model)).sum().backward()
    torch.optim.AdamW(small.parameters()).step()
    assert torch.isfinite(small(images(model))).all()


def test_without_units_only_the_bias_of_the_second_map_is_left(build):
    model = build("deit")
    names = ("blocks.0.attn.vo", "blocks.0.mlp")
    small = compact(model, {name: torch.zeros(48 if "mlp" in name else 8, dtype=torch.bool) for name in names})
    x = torch.randn(2, 17, 24)
    assert torch.equal(small.blocks[0].attn(x), model.blocks[0].attn.proj.bias.expand(2, 17, 24))
    assert torch.equal(small.blocks[0].mlp(x), model.blocks[0].mlp.fc2.bias.expand(2, 17, 24))


def test_without_query_key_units_attention_is_uniform(build):
    model = build("deit")
    small = compact(model, {"blocks.0.attn.qk": torch.zeros(8, dtype=torch.bool)})
    x = torch.randn(2, 17, 24)
    dense = model.blocks[0].attn
    values = nn.functional.linear(x, dense.qkv.weight[48:], dense.qkv.bias[48:])
    expected = dense.proj(values.mean(1, keepdim=True)).expand(2, 17, 24)
    torch.testing.assert_close(small.blocks[0].attn(x), expected)


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_attention_masks_mean_what_they_mean_to_timm(build, images, random_masks, emptied, fused):
    model = build("deit")
    for block in model.blocks:
        block.attn.fused_attn = fused
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=2)
    if emptied:
        masks["blocks.1.attn.qk"][:] = False
    x = images(model)
    keep = torch.rand(17, 17) < 0.5
    keep.fill_diagonal_(True)
    assert_same(model, pairs, masks, x, attn_mask=keep)
    assert_same(model, pairs, masks, x, attn_mask=torch.randn(17, 17))
    assert_same(model, pairs, masks, x, is_causal=True)


@pytest.mark.parametrize("name", ["swin_shifted", "swin_padded"])
def test_fused_window_attention(build, images, random_masks, name):
    model = build(name)
    for layer in model.layers:
        for block in layer.blocks:
            block.attn.fused_attn = True
    pairs = find_pairs(model)
    assert_same(model, pairs, random_masks(pairs, seed=3), images(model))


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
def test_a_compact_swin_takes_another_resolution(build, images, random_masks):
    model = build("swin_shifted")
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=3)
    small = compact(model, masks)
    for each in (model, small):
        each.set_input_size((40, 40), window_size=5)
    x = images(model)
    assert x.shape[-1] == 40
    torch.testing.assert_close(small(x), masked_at(model, pairs, masks)(x), atol=1e-5, rtol=1e-5)


def test_autocast_runs_and_agrees(model, images, random_masks):
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = masked_at(model, pairs, masks)(images(model)).float()
        torch.testing.assert_close(compact(model, masks)(images(model)).float(), expected, atol=0.1, rtol=0.1)


def test_the_model_is_left_alone_and_shares_nothing(model, images, random_masks):
    pairs = find_pairs(model)
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    small = compact(model, random_masks(pairs, seed=0))
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        for tensor in (*small.parameters(), *small.buffers()):
            tensor.zero_()
    assert find_pairs(model) == pairs
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    kept = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert not kept & {tensor.data_ptr() for tensor in (*small.parameters(), *small.buffers()) if tensor.numel()}


def test_flags_are_kept(model, random_masks):
    pairs = find_pairs(model)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("qkv.bias", "fc2.weight")))
    model.train()
    last = model.get_submodule(pairs[-1].module)
    last.eval()
    model.get_submodule(pairs[0].module).attn_drop.eval()
    small = compact(model, random_masks(pairs, seed=0))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in small.named_parameters()} == flags
    training = {name: module.training for name, module in model.named_modules()}
    assert {name: training[name] for name, module in small.named_modules()} == {
        name: module.training for name, module in small.named_modules()
    }


def test_missing_names_and_full_masks_keep_all(build, images):
    model = build("deit")
    full = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in find_pairs(model)}
    for masks in ({}, full):
        same = compact(model, masks)
        assert torch.equal(same(images(model)), model(images(model)))
        assert all(type(block.attn) is Attention for block in same.blocks)
    half = compact(model, {"blocks.1.mlp": torch.arange(48) < 24})
    assert half.blocks[1].mlp.fc1.out_features == 24
    assert half.blocks[0].mlp.fc1.out_features == 48


def test_heads_of_unequal_width_are_padded_with_zeros_that_stay(build, images):
    model = build("deit")
    kept = torch.zeros(3, 8, dtype=torch.bool)
    kept[0, :5], kept[1, 2], kept[2, 4:7] = True, True, True
    small = compact(model, {"blocks.0.attn.qk": kept.flatten(), "blocks.0.attn.vo": kept.flatten()})
    attention = small.blocks[0].attn
    assert (attention.qk_width, attention.v_width) == (5, 5)
    padding = torch.tensor([False] * 5 + [False, True, True, True, True] + [False, False, False, True, True])
    optimizer = torch.optim.AdamW(small.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        small(images(model)).square().sum().backward()
        optimizer.step()
    for part in attention.qkv.weight.view(3, 15, 24):
        assert torch.equal(part.abs().sum(1) == 0, padding)
    assert torch.equal(attention.proj.weight.abs().sum(0) == 0, padding)


def heads_with_values(pairs, masks, num_there):
    """The masks with the values of all but `num_there` heads of every attention off, the first ones."""
    masks = dict(masks)
    for pair in pairs:
        if pair.kind == "vo":
            head = torch.arange(pair.size) // (pair.size // pair.num_heads)
            masks[pair.name] = masks[pair.name] & (head >= pair.num_heads - num_there)
            masks[pair.name][-1:] = num_there > 0
    return masks


@pytest.mark.parametrize("num_there", [0, 1])
@pytest.mark.parametrize("fused", [False, True])
def test_heads_without_values_leave(model, images, random_masks, num_there, fused):
    for name, module in model.named_modules():
        if name.endswith(".attn"):
            module.fused_attn = fused
    pairs = find_pairs(model, per_head=True)
    masks = heads_with_values(pairs, random_masks(pairs, seed=4), num_there)
    assert_same(model, pairs, masks, images(model))
    small = compact(model, masks)
    attentions = {pair.module: small.get_submodule(pair.module) for pair in pairs if pair.kind == "vo"}
    for name, attention in attentions.items():
        kept = {kind: masks[f"{name}.{kind}"].view(-1, 8)[-1] for kind in ("qk", "vo")}
        qk_width, v_width = (int(kept[kind].sum()) * num_there for kind in ("qk", "vo"))
        assert (attention.num_heads, attention.qk_width, attention.v_width) == (num_there, qk_width, v_width)
        assert attention.qkv.out_features == 2 * qk_width + v_width
        assert attention.proj.in_features == v_width
        if hasattr(attention, "relative_position_bias_table"):
            dense = model.get_submodule(name).relative_position_bias_table
            assert torch.equal(attention.relative_position_bias_table, dense[:, dense.shape[1] - num_there :])
        if num_there == 0:
            bias = attention.proj.bias
            x = torch.randn(4, getattr(attention, "window_area", 6), attention.qkv.in_features)
            assert torch.equal(attention(x), bias.expand(*x.shape[:2], -1))
    again = [pair for pair in find_pairs(small, per_head=True) if pair.kind != "mlp"]
    assert {pair.num_heads for pair in again} == ({num_there} if num_there else set())
    small.train()(images(model)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.get_submodule(name).parameters())
    torch.optim.AdamW(small.parameters()).step()
    assert torch.isfinite(small(images(model))).all()


def test_a_head_without_query_key_units_stays(build, images):
    model = build("deit")
    pairs = find_pairs(model, per_head=True)
    masks = {"blocks.0.attn.qk": torch.arange(24) >= 8}
    assert compact(model, masks).blocks[0].attn.num_heads == 3
    assert_same(model, pairs, masks, images(model))


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
@pytest.mark.parametrize("num_there", [0, 1])
def test_a_swin_of_fewer_heads_takes_another_resolution(build, images, random_masks, num_there):
    model = build("swin_shifted")
    pairs = find_pairs(model, per_head=True)
    masks = heads_with_values(pairs, random_masks(pairs, seed=3), num_there)
    small = compact(model, masks)
    for each in (model, small):
        each.set_input_size((40, 40), window_size=5)
    x = images(model)
    torch.testing.assert_close(small(x), masked_at(model, pairs, masks)(x), atol=1e-5, rtol=1e-5)


def test_cutting_twice_is_cutting_once(model, images, random_masks):
    first = random_masks(find_pairs(model), seed=0)
    once = compact(model, first)
    second = random_masks(find_pairs(once), seed=1)
    twice = compact(once, second)
    combined = {}
    for name, mask in first.items():
        combined[name] = mask.clone()
        combined[name][mask] = second[name]
    expected = compact(model, combined)
    assert twice.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in twice.state_dict().items())
    assert torch.equal(twice(images(model)), expected(images(model)))


def test_a_masked_compact_model_equals_its_compact(model, images, random_masks):
    small = compact(model, random_masks(find_pairs(model), seed=0))
    for per_head in (False, True):
        pairs = find_pairs(small, per_head=per_head)
        assert_same(small, pairs, random_masks(pairs, seed=1), images(model))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"blocks.2.mlp": torch.ones(48, dtype=torch.bool)}, r"masks: blocks\.2\.mlp is not allowed"),
        ({"blocks.0.mlp": torch.ones(48)}, r"masks: blocks\.0\.mlp of torch\.float32 is not allowed"),
        (
            {"blocks.0.mlp": torch.ones(47, dtype=torch.bool)},
            r"blocks\.0\.mlp with shape \(47,\) is not allowed: must be \(48,\);",
        ),
        (
            {"blocks.0.attn.qk": torch.ones(16, dtype=torch.bool)},
            r"shape \(16,\) is not allowed: must be \(8,\) or \(24,\) per head;",
        ),
    ],
)
def test_wrong_masks_are_refused(build, masks, message):
    with pytest.raises(ValueError, match=message) as caught:
        compact(build("deit"), masks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("per_head", "num_there"), [(False, None), (True, None), (True, 1), (True, 0)])
def test_a_saved_compact_model_loads_into_one_built_from_its_widths(model, images, random_masks, per_head, num_there):
    pairs = find_pairs(model, per_head=per_head)
    masks = random_masks(pairs, seed=0)
    if num_there is not None:
        masks = heads_with_values(pairs, masks, num_there)
    masks[pairs[-1].name][:] = False
    del masks[pairs[0].name]
    small = compact(model, masks)
    widths = json.loads(json.dumps(widths_of(masks, pairs)))

    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.normal_()
    rebuilt = shrink_like(fresh, widths)
    rebuilt.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(rebuilt(images(model)), small(images(model)))
    assert count_cost(rebuilt, example_inputs(model)) == count_cost(small, example_inputs(model))


def test_widths_are_counts_by_name_or_by_head(build):
    model = build("deit")
    masks = {"blocks.0.attn.qk": torch.arange(8) < 3, "blocks.0.mlp": torch.zeros(48, dtype=torch.bool)}
    widths = widths_of(masks, find_pairs(model))
    assert widths["blocks.0.attn.qk"] == 3
    assert widths["blocks.0.attn.vo"] == 8
    assert widths["blocks.0.mlp"] == 0
    per_head = widths_of({"blocks.0.attn.vo": torch.arange(24) < 10}, find_pairs(model, per_head=True))
    assert per_head["blocks.0.attn.vo"] == [8, 2, 0]
    assert per_head["blocks.0.attn.qk"] == [8, 8, 0]
    assert widths_of({"blocks.0.attn.vo": torch.zeros(8, dtype=torch.bool)}, find_pairs(model))["blocks.0.attn.qk"] == 0


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"blocks.2.mlp": 3}, r"widths: blocks\.2\.mlp is not allowed"),
        (
            {"blocks.0.mlp": 49},
            r"widths: blocks\.0\.mlp=49 is not allowed: must be a whole number from 0 to 48",
        ),
        ({"blocks.0.attn.qk": [1, 2]}, r"blocks\.0\.attn\.qk=\[1, 2\] is not allowed.*or a list of 3"),
        ({"blocks.0.attn.qk": [1, 2, -1]}, r"is not allowed"),
    ],
)
def test_wrong_widths_are_refused(build, widths, message):
    with pytest.raises(ValueError, match=message) as caught:
        shrink_like(build("deit"), widths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("per_head", [False, True])
def test_a_model_cut_in_inference_mode_can_be_trained(model, images, random_masks, per_head):
    with torch.inference_mode():
        masks = random_masks(find_pairs(model, per_head=per_head), seed=0)
        small = compact(model, masks)
    assert not any(tensor.is_inference() for tensor in small.state_dict().values())
    small.train()(images(model)).sum().backward()
    torch.optim.SGD(small.parameters(), lr=0.1).step()


@pytest.mark.parametrize(("qk_width", "v_width"), [(5, 8), (8, 3), (3, 5), (16, 4)])
@torch.no_grad()
def test_fused_attention_brings_widths_together_without_changing_anything(qk_width, v_width):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 7, qk_width, generator=generator) for _ in range(2))
    v = torch.randn(2, 3, 7, v_width, generator=generator)
    bias = torch.randn(1, 3, 7, 7, generator=generator)
    expected = (0.3 * q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    torch.testing.assert_close(fused_attention(q, k, v, scale=0.3, mask=bias, dropout=0.0), expected)


def test_fused_attention_compiles_in_one_piece():
    def attend(q, v):
        return fused_attention(q, q, v, scale=1.0, mask=None, dropout=0.0)

    explained = torch._dynamo.explain(attend)(torch.randn(1, 1, 7, 5), torch.randn(1, 1, 7, 3))
    assert explained.graph_break_count == 0


def test_the_zeros_of_fused_attention_are_not_counted():
    class Attention(nn.Module):
        def forward(self, qkv):
            q, k, v = qkv.split((5, 5, 3), dim=-1)
            return fused_attention(q, k, v, scale=1.0, mask=None, dropout=0.0)

    assert count_cost(Attention(), torch.randn(1, 1, 7, 13)).macs == 7 * 7 * (5 + 3)
