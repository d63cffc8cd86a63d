"""Networks whose tokens leave against the plain loop over their blocks, and their cost against a formula."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.tokens import drop_tokens, kept_tokens, token_points

PLAIN = ["deit", "deit_distilled", "vit_plain"]
"""16 patches behind 1 (class), 2 (class, distillation) or 2 (register) tokens; vit_plain has a mean for a head."""
PATCHES = {"blocks.0": [0, 1, 3, 4, 7, 8, 9, 12, 14, 15], "blocks.1": [1, 4, 8, 15]}


def kept_of(model, patches=PATCHES):
    prefix = model.num_prefix_tokens
    return {name: [*range(prefix), *(prefix + patch for patch in kept)] for name, kept in patches.items()}


def shortened(model, patches=PATCHES):
    short = copy.deepcopy(model)
    drop_tokens(short, kept_of(model, patches))
    return short


def by_loop(model, x, kept):
    """The network `model` with all its tokens, block by block; `kept` counts as at the first block."""
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    there = list(range(tokens.shape[1]))
    for name, block in model.blocks.named_children():
        stay = kept[f"blocks.{name}"]
        tokens = block(tokens[:, [there.index(token) for token in stay]])
        there = stay
    return model.forward_head(model.norm(tokens))


@pytest.mark.parametrize("name", PLAIN)
def test_blocks_see_the_tokens_that_are_kept(build, images, name):
    model = build(name)
    x, short = images(model), shortened(model)
    with torch.no_grad():
        expected = by_loop(model, x, kept_of(model))
        torch.testing.assert_close(short(x), expected)
        assert (expected - model(x)).abs().max() > 0.01
        same = copy.deepcopy(model)
        drop_tokens(same, kept_tokens(short))
        for again in (copy.deepcopy(short), same):
            again.load_state_dict(model.state_dict())
            assert torch.equal(again(x), short(x))
            assert kept_tokens(again) == kept_of(model)
    assert short.state_dict().keys() == model.state_dict().keys()
    assert [name for name, _ in short.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_a_block_without_an_entry_sees_what_the_one_before_it_sees(build, images):
    model = build("deit")
    x = images(model)
    first, last = ({name: PATCHES[name]} for name in PATCHES)
    with torch.no_grad():
        short = shortened(model, first)
        assert torch.equal(short(x), shortened(model, {**first, "blocks.1": first["blocks.0"]})(x))
        assert kept_tokens(short)["blocks.1"] == kept_of(model, first)["blocks.0"]
        short = shortened(model, last)
        torch.testing.assert_close(short(x), by_loop(model, x, {"blocks.0": list(range(17)), **kept_of(model, last)}))
    assert kept_tokens(model) == {}


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_compact_is_masked_and_costs_what_its_units_are_priced(build, images, random_masks, name, per_head):
    short = shortened(build(name))
    pairs = find_pairs(short, per_head=per_head)
    masks = random_masks(pairs, seed=0)
    masked = MaskedModel(short, pairs)
    masked.set_masks(masks)
    small = compact(short, masks)
    x = images(short)
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(x), atol=1e-5, rtol=1e-5)
        assert (small(x) - short(x)).abs().max() > 0.01
    assert kept_tokens(small) == kept_of(small)
    again = shrink_like(short, widths_of(masks, pairs))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.eval()(x), small.eval()(x))
    if not per_head:
        removed = sum(int((~masks[pair.name]).sum()) * pair.macs_per_unit for pair in pairs)
        assert count_cost(small, example_inputs(small)).macs == pairs[0].model_cost.macs - removed


@pytest.mark.parametrize("name", PLAIN)
def test_the_cost_is_that_of_the_tokens_that_are_there(build, name):
    model = build(name)
    short = shortened(model)
    width, hidden, prefix = 24, 48, model.num_prefix_tokens
    blocks = sum(
        n * (4 * width**2 + 2 * n * width + 2 * width * hidden)
        for n in (prefix + len(patches) for patches in PATCHES.values())
    )
    heads = 2 if name == "deit_distilled" else 1
    macs = 16 * 3 * 4**2 * width + blocks + heads * width * 5
    cost = count_cost(short, example_inputs(short))
    assert cost.macs == macs
    assert cost.params == count_cost(model, example_inputs(model)).params
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        short.requires_grad_(False)(**example_inputs(short))
    assert counter.get_total_flops() == 2 * macs
    assert sum(pair.size * pair.macs_per_unit for pair in find_pairs(short)) == blocks


def test_it_trains_and_moves(build, images):
    short = shortened(build("deit", pos_drop_rate=0.1)).train()
    short(images(short)).square().sum().backward()
    position = short.pos_embed.grad[0].abs().sum(1)
    gone = [token for token in range(17) if token not in kept_of(short)["blocks.0"]]
    assert position[gone].abs().max() == 0
    assert all(parameter.grad is not None for parameter in short.parameters())
    assert short.double()(images(short).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("swin_shifted", {}),
        ("vit_post_norm", {}),
        ("deit", {"dynamic_img_size": True}),
        ("deit", {"patch_drop_rate": 0.5}),
        ("deit", {"global_pool": "map", "class_token": False}),
    ],
)
def test_networks_that_need_their_tokens_have_no_place_for_it(build, name, overrides):
    model = build(name, **overrides)
    assert token_points(model) == []
    assert kept_tokens(model) == {}
    masked = MaskedModel(model, find_pairs(model))
    assert masked.mask_tokens() == {}
    with pytest.raises(ValueError, match=r"^tokens: blocks.0 is not allowed: must be a block of this [^\n]*$"):
        drop_tokens(model, {"blocks.0": [0, 1]})


@pytest.mark.parametrize(
    "kept",
    [
        {"blocks.0": [1, 2]},  # without the class token
        {"blocks.0": [0, 2, 1]},
        {"blocks.0": [0, 17]},
        {"blocks.0": [0, 1], "blocks.1": [0, 2]},  # what has left does not come back
        {"blocks.0": [0, 1], "blocks.2": [0]},
    ],
)
def test_tokens_that_cannot_be_are_refused(build, kept):
    with pytest.raises(ValueError, match=r"^tokens: [^\n]* not allowed: must [^\n]*; use [^\n]*$"):
        drop_tokens(build("deit"), kept)


@pytest.mark.parametrize("name", PLAIN)
def test_masks_on_tokens_multiply_what_the_norms_put_out(build, images, name):
    model = build(name)
    x, masked = images(model), MaskedModel(model, find_pairs(model))
    names = list(masked.state_dict())
    token_masks = masked.mask_tokens()
    assert torch.equal(masked(x), model(x))
    assert list(masked.state_dict()) == [*names, *(f"token_parameters.blocks/{block}" for block in (0, 1))]
    reference, norms = {}, []
    for block, mask in token_masks.items():
        with torch.no_grad():
            mask.copy_(torch.rand(16, generator=torch.Generator().manual_seed(len(norms))))
        reference[block] = torch.cat([torch.ones(model.num_prefix_tokens), mask.detach()]).requires_grad_()
        norms += [(model.get_submodule(f"{block}.{norm}"), reference[block]) for norm in ("norm1", "norm2")]
    actual = masked(x)
    handles = [norm.register_forward_hook(lambda m, a, out, by=by: out * by[None, :, None]) for norm, by in norms]
    expected = model(x)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(actual, expected)
    assert (actual - model(x)).abs().max() > 0.01
    actual.square().sum().backward()
    expected.square().sum().backward()
    for block, mask in token_masks.items():
        torch.testing.assert_close(mask.grad, reference[block].grad[model.num_prefix_tokens :], atol=1e-4, rtol=1e-3)
