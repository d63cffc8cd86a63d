"""The masked model against a dense model whose weights hold the masks."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


def folded(
    model: nn.Module, pairs: list[Pair], masks: dict[str, Tensor], at_first_maps: bool = False
) -> dict[str, Tensor]:
    """The model's parameters with the masks multiplied into query rows and into columns of proj and fc2.

    At the first maps into key rows, too, and into rows of fc1 in place of columns of fc2.
    """
    parameters = dict(model.named_parameters())
    for pair in pairs:
        mask = masks[pair.name]
        tiled = mask if pair.per_head else torch.cat([mask] * pair.num_heads)
        if pair.kind == "qk":
            ones = torch.ones_like(tiled)
            others = torch.cat([tiled if at_first_maps else ones, ones])
            for part, factor in (
                ("weight", torch.cat([tiled, others])[:, None]),
                ("bias", torch.cat([tiled, others])),
            ):
                name = f"{pair.module}.qkv.{part}"
                if name in parameters:
                    parameters[name] = parameters[name] * factor
        elif pair.kind == "mlp" and at_first_maps:
            for part, factor in (("weight", tiled[:, None]), ("bias", tiled)):
                parameters[f"{pair.module}.fc1.{part}"] = parameters[f"{pair.module}.fc1.{part}"] * factor
        else:
            name = f"{pair.module}.{'proj' if pair.kind == 'vo' else 'fc2'}.weight"
            parameters[name] = parameters[name] * tiled
    return parameters


@pytest.mark.parametrize("at_first_maps", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_values_and_gradients_are_those_of_masks_in_the_weights(model, images, per_head, at_first_maps):
    pairs = find_pairs(model, per_head=per_head)
    masked = MaskedModel(model, pairs, at_first_maps=at_first_maps)
    generator = torch.Generator().manual_seed(0)
    masked.set_masks({pair.name: torch.rand(pair.size, generator=generator) * 2 - 0.5 for pair in pairs})
    reference = {name: mask.detach().clone().requires_grad_() for name, mask in masked.masks.items()}

    x = images(model)
    actual, expected = masked(x), functional_call(model, folded(model, pairs, reference, at_first_maps), x)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert (actual - model(x)).abs().max() > 0.01

    actual.square().sum().backward()
    expected.square().sum().backward()
    for name, mask in masked.masks.items():
        assert mask.grad.abs().min() > 0
        torch.testing.assert_close(mask.grad, reference[name].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_at_one_it_is_the_model_to_the_bit(model, images, per_head, training, autocast):
    model.train(training)
    masked = MaskedModel(model, find_pairs(model, per_head=per_head)).train(training)
    x = images(model)
    outputs = []
    for forward in (masked, model):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            outputs.append(forward(x))
    assert torch.equal(*outputs)
    assert outputs[0].dtype == outputs[1].dtype


def test_masks_of_zero_and_one_are_the_same_in_both_places(model, images):
    pairs = find_pairs(model)
    generator, x = torch.Generator().manual_seed(0), images(model)
    masks = {pair.name: (torch.rand(pair.size, generator=generator) < 0.6).float() for pair in pairs}
    outputs = []
    for at_first_maps in (False, True):
        masked = MaskedModel(model, pairs, at_first_maps=at_first_maps)
        masked.set_masks(masks)
        outputs.append(masked(x))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)


def test_half_precision_activations_stay_half(build):
    model = build("deit").bfloat16()
    masked = MaskedModel(model, find_pairs(model))
    assert all(mask.dtype == torch.float32 for mask in masked.masks.values())
    output = masked(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))
    assert torch.equal(output, model(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)))


def test_attention_stays_fused(build, images, monkeypatch):
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: calls.append(k) or attend(*a, **k),
    )
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    calls.clear()
    masked(images(model))
    assert len(calls) == 2
    assert all(call.get("scale") is None for call in calls)


def test_called_directly_the_model_stays_dense(model, images):
    x = images(model)
    dense = model(x)
    masked = MaskedModel(model, find_pairs(model))
    masked.set_masks({name: torch.zeros_like(mask) for name, mask in masked.masks.items()})
    assert not torch.allclose(masked(x), dense)
    assert torch.equal(model(x), dense)


def test_no_hook_is_left_behind_by_an_exception(build, images):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    with pytest.raises(AssertionError):
        masked(torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_arguments_reach_the_model(build, images):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    x = images(model)
    assert torch.equal(masked(x, is_causal=True), model(x, is_causal=True))
    assert not torch.equal(masked(x, is_causal=True), model(x))


def test_masks_are_named_ones_with_their_pairs(model):
    pairs = find_pairs(model)
    masked = MaskedModel(model, iter(pairs))
    assert list(masked.masks) == [pair.name for pair in pairs]
    assert masked.masks.pairs == pairs
    assert isinstance(masked.masks, dict)
    for pair in pairs:
        mask = masked.masks[pair.name]
        assert isinstance(mask, nn.Parameter)
        assert torch.equal(mask, torch.ones(pair.size))
        assert any(mask is parameter for parameter in masked.parameters())
    assert len(list(masked.parameters())) == len(list(model.parameters())) + len(pairs)


def test_values_are_copied_in_place(build):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    before = dict(masked.masks)
    halves = torch.arange(8) % 2 == 0
    masked.set_masks({"blocks.1.attn.vo": halves, "blocks.0.mlp": torch.full((48,), 0.25)})
    assert all(masked.masks[name] is mask for name, mask in before.items())
    assert torch.equal(before["blocks.1.attn.vo"], halves.float())
    assert torch.equal(before["blocks.0.mlp"], torch.full((48,), 0.25))
    assert torch.equal(before["blocks.0.attn.vo"], torch.ones(8))
    assert all(mask.requires_grad for mask in before.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blocks.9.mlp": torch.ones(48)}, r"masks: blocks\.9\.mlp is not allowed: must be a masked pair"),
        ({"blocks.0.mlp": torch.ones(47)}, r"blocks\.0\.mlp with shape \(47,\) .*must be \(48,\)"),
    ],
)
def test_wrong_values_are_refused_and_change_nothing(build, values, message):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    with pytest.raises(ValueError, match=message) as caught:
        masked.set_masks({"blocks.0.attn.qk": torch.zeros(8), **values})
    assert "\n" not in str(caught.value)
    assert torch.equal(masked.masks["blocks.0.attn.qk"], torch.ones(8))


def test_pairs_of_another_model_are_refused(build):
    wide = find_pairs(build("deit", embed_dim=48))
    with pytest.raises(ValueError, match=r"pairs: blocks\.0\.attn\.qk with 16 units is not allowed: must have 8"):
        MaskedModel(build("deit"), wide)
    with pytest.raises(ValueError, match=r"pairs: layers\.0\.blocks\.0\.attn\.qk is not allowed"):
        MaskedModel(build("deit"), find_pairs(build("swin_shifted")))


def test_some_pairs_only(build, images):
    model = build("deit")
    masked = MaskedModel(model, [pair for pair in find_pairs(model) if pair.kind == "mlp"])
    assert list(masked.masks) == ["blocks.0.mlp", "blocks.1.mlp"]
    assert torch.equal(masked(images(model)), model(images(model)))


def test_state_can_be_saved_and_copied(model, images):
    masked = MaskedModel(model, find_pairs(model))
    generator = torch.Generator().manual_seed(0)
    masked.set_masks({name: torch.rand(len(mask), generator=generator) for name, mask in masked.masks.items()})
    fresh = MaskedModel(copy.deepcopy(model), find_pairs(model))
    fresh.load_state_dict(masked.state_dict(), assign=True)
    clone = copy.deepcopy(masked)
    x = images(model)
    for other in (fresh, clone):
        assert torch.equal(other(x), masked(x))
        assert other.masks.pairs == masked.masks.pairs
        for name, mask in masked.masks.items():
            assert torch.equal(other.masks[name], mask)
            assert other.masks[name] is not mask


def test_recomputation_in_backward_is_refused(model, images):
    masked = MaskedModel(model, find_pairs(model))
    model.set_grad_checkpointing(True)
    with pytest.raises(ValueError, match="grad_checkpointing: True is not allowed"):
        masked(images(model))
    with torch.no_grad():
        masked(images(model))


def test_gradients_reach_the_masks_through_ddp(build, images):
    model = build("deit").requires_grad_(False)
    masked = MaskedModel(model, find_pairs(model))
    x = images(model)
    masked(x).square().sum().backward()
    alone = {name: mask.grad.clone() for name, mask in masked.masks.items()}
    masked.zero_grad()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(masked)(x).square().sum().backward()
    finally:
        dist.destroy_process_group()
    for name, mask in masked.masks.items():
        torch.testing.assert_close(mask.grad, alone[name])


def test_pairs_made_by_hand_mask_as_those_found(model, images):
    found = find_pairs(model)
    by_hand = [Pair(pair.name, pair.kind, pair.size, 1, 1.0) for pair in found]
    generator = torch.Generator().manual_seed(0)
    values = {pair.name: torch.rand(pair.size, generator=generator) for pair in found}
    outputs = []
    for pairs in (found, by_hand):
        masked = MaskedModel(model, pairs)
        masked.set_masks(values)
        outputs.append(masked(images(model)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_masks_stay_as_they_are_when_the_model_turns_half(build, dtype):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model))
    masked.set_masks({"blocks.0.mlp": torch.full((48,), 0.1)})
    masked(torch.zeros(1, 3, 16, 16)).sum().backward()
    mask = masked.masks["blocks.0.mlp"]
    gradient = mask.grad.clone()
    masked.to(dtype)
    assert model.head.weight.dtype == dtype
    assert masked.masks["blocks.0.mlp"] is mask
    assert torch.equal(mask, torch.full((48,), 0.1))
    assert torch.equal(mask.grad, gradient)
    assert masked(torch.zeros(1, 3, 16, 16, dtype=dtype)).dtype == dtype
    assert masked.double().masks["blocks.0.mlp"].dtype == torch.float64


def test_masks_move_with_the_model(build):
    model = build("deit")
    masked = MaskedModel(model, find_pairs(model)).to("meta", torch.half)
    assert {(p.device.type, p.dtype) for p in masked.masks.values()} == {("meta", torch.float32)}
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.half)}
