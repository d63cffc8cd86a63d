"""SnapViT's own repair, against what its two scripts do, written out column by column."""

import copy

import pytest
import torch

from spp.methods.units.snapvit.sweeps import swept
from spp.structure.compact import compact
from spp.structure.find import find_pairs

NUM_HEADS, HEAD_WIDTH = 2, 8
KEPT_HEADS = ([True, False], [False, True])


@pytest.fixture
def case(tiny):
    """A network in double precision, its pairs, masks without whole heads and MLP units, and images."""
    model = tiny.build().double()
    pairs = find_pairs(model, per_head=True)
    generator = torch.Generator().manual_seed(3)
    masks = {}
    for block, heads in enumerate(KEPT_HEADS):
        for kind in ("qk", "vo"):
            masks[f"blocks.{block}.attn.{kind}"] = torch.tensor(heads).repeat_interleave(HEAD_WIDTH)
        masks[f"blocks.{block}.mlp"] = torch.rand(32, generator=generator) > 0.4
    images = torch.randn(12, 3, 8, 8, generator=generator, dtype=torch.float64)
    return model, pairs, masks, images


def released_sweep(weight, hessian, is_removed):
    """layer_wrapper.py: one column after the other, each error to all columns on the right."""
    weight, hessian = weight.clone(), hessian.clone()
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for column in range(weight.shape[1]):
        if is_removed[column]:
            error = weight[:, column] / factor[column, column]
            weight[:, column:] -= error[:, None] * factor[column, column:]
            weight[:, column] = 0
    return weight


def hessian_of(inputs):
    """The running mean over images that are looked at one by one: 2 / n times the sum of their Gram matrices."""
    hessian = torch.zeros(inputs.shape[-1], inputs.shape[-1], dtype=inputs.dtype)
    for number, image in enumerate(inputs):
        hessian = hessian * number / (number + 1) + 2 / (number + 1) * image.T @ image
    return hessian


def inputs_of_maps(block, stream):
    seen = {}
    handles = [
        layer.register_forward_pre_hook(lambda module, args, name=name: seen.update({name: args[0]}))
        for name, layer in (("proj", block.attn.proj), ("fc2", block.mlp.fc2))
    ]
    output = block(stream)
    for handle in handles:
        handle.remove()
    return seen, output


@torch.no_grad()
def released_repair(model, masks, images, *, by_inference):
    """SparseGPTPrunableModel.prune, or ElasticViT.prune with correction; units that leave have zeros for weights."""
    model = copy.deepcopy(model)
    stream = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    for number, block in enumerate(model.blocks):
        seen, dense_output = inputs_of_maps(block, stream)
        for layer, inputs, name in ((block.attn.proj, seen["proj"], "attn.vo"), (block.mlp.fc2, seen["fc2"], "mlp")):
            is_removed, hessian = ~masks[f"blocks.{number}.{name}"], hessian_of(inputs)
            if by_inference:  # best first, then swept from the right
                order = is_removed.float().argsort(stable=True)
                backwards = order.flip(0)
                found = released_sweep(
                    layer.weight[:, backwards], hessian[backwards][:, backwards], is_removed[backwards]
                )
                layer.weight[:, backwards] = found
            else:
                layer.weight.copy_(released_sweep(layer.weight, hessian, is_removed))
        stream = dense_output if by_inference else block(stream)
    return model(images)


@pytest.mark.parametrize(("kind", "by_inference"), [("snapvit_prune", False), ("snapvit_inference", True)])
def test_the_sweeps_are_the_released_ones(case, kind, by_inference):
    model, pairs, masks, images = case
    small = swept(model, pairs, masks, [images[:5], images[5:]], kind)
    with torch.no_grad():
        found = small(images)
    torch.testing.assert_close(found, released_repair(model, masks, images, by_inference=by_inference))
    assert [value.shape for value in small.parameters()] == [v.shape for v in compact(model, masks).parameters()]


def test_removed_columns_first_is_the_least_squares_of_the_output(case):
    """Of the first block, by lstsq on the dense inputs with the damping as further rows."""
    model, pairs, masks, images = case
    with torch.no_grad():
        stream = model._pos_embed(model.patch_embed(images))
        inputs = inputs_of_maps(model.blocks[0], stream)[0]["fc2"].flatten(0, 1)
    weight, kept = model.blocks[0].mlp.fc2.weight.detach(), masks["blocks.0.mlp"]
    damping = (0.01 * inputs.square().sum(0).mean()).sqrt() * torch.eye(len(kept), dtype=inputs.dtype)
    design = torch.cat([inputs, damping])
    expected = torch.linalg.lstsq(design[:, kept], design @ weight.T).solution.T
    small = swept(model, pairs, masks, [images], "snapvit_inference")
    torch.testing.assert_close(small.blocks[0].mlp.fc2.weight.detach(), expected)
    assert torch.equal(small.blocks[0].mlp.fc2.bias, model.blocks[0].mlp.fc2.bias)


def test_the_dense_network_stays_and_another_kind_of_network_is_refused(case):
    model, pairs, masks, images = case
    before = copy.deepcopy(model.state_dict())
    everything = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in pairs}
    whole = swept(model, pairs, everything, [images], "snapvit_prune")
    swept(model, pairs, masks, [images], "snapvit_prune")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, whole.state_dict()[name])
    with pytest.raises(ValueError, match=r"^repair.kind: snapvit_prune is not allowed with a Linear; allowed: net"):
        swept(torch.nn.Linear(1, 1), pairs, masks, [images], "snapvit_prune")
