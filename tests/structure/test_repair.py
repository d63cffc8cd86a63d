"""Repair in closed form, against least squares written out with whole design matrices."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spp.plan.work import NetworkSize
from spp.structure.activations import activations
from spp.structure.compact import compact
from spp.structure.find import find_pairs, unit_weights
from spp.structure.pair import Pair
from spp.structure.repair import repair, repair_in_place
from spp.structure.tokens import drop_tokens

Build = Callable[..., nn.Module]
RandomMasks = Callable[..., dict[str, Tensor]]

RIDGE = 0.01


def batches_for(model: Any, num_batches: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    shape = (4, 3, *model.patch_embed.img_size)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(num_batches)]


def features(model: Any, batches: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.forward_features(batch) for batch in batches])


def error(model: nn.Module, dense: nn.Module, batches: list[Tensor]) -> float:
    return float((features(model, batches) - features(dense, batches)).square().sum())


def inputs_of(model: nn.Module, module: str, batches: list[Tensor]) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(module).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    features(model, batches)
    handle.remove()
    return torch.cat(seen)


def with_zeros(model: nn.Module, pairs: list[Pair], masks: dict[str, Tensor]) -> nn.Module:
    """A copy in which the weights of the removed units are 0."""
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for pair in pairs:
            for part in unit_weights(zeroed, pair):
                part.parameter.index_fill_(part.dim, part.index[~masks[pair.name]].flatten(), 0.0)
    return zeroed


def ridge_solution(design: Tensor, target: Tensor) -> Tensor:
    """argmin |design x - target|^2 + r |x|^2 as one lstsq, r being RIDGE times the mean diagonal of design^T design."""
    damping = (RIDGE * design.square().sum(0).mean()).sqrt() * torch.eye(design.shape[1], dtype=design.dtype)
    rows = torch.cat([target, torch.zeros(design.shape[1], target.shape[1], dtype=design.dtype)])
    return torch.linalg.lstsq(torch.cat([design, damping]), rows).solution


@pytest.mark.parametrize("per_head", [False, True])
def test_a_network_of_full_widths_stays_the_dense_one(model: nn.Module, per_head: bool) -> None:
    masks = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in find_pairs(model, per_head=per_head)}
    batches = batches_for(model)
    repaired = repair(compact(model, masks), model, batches)
    torch.testing.assert_close(features(repaired, batches), features(model, batches), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("per_head", [False, True])
def test_the_features_come_closer_to_the_dense_ones(
    model: nn.Module, random_masks: RandomMasks, per_head: bool
) -> None:
    masks = random_masks(find_pairs(model, per_head=per_head), 0)
    small, batches = compact(model, masks), batches_for(model, 6)
    second, full = (repair(small, model, batches, kind=kind) for kind in ("second", "full"))
    fresh = batches_for(model, 2, seed=1)
    assert error(second, model, batches) < 0.9 * error(small, model, batches)
    assert error(full, model, batches) < 0.9 * error(small, model, batches)
    assert error(full, model, fresh) < error(small, model, fresh)


@pytest.mark.parametrize("name", ["blocks.1.mlp", "blocks.1.attn.vo"])
@pytest.mark.parametrize("architecture", ["deit", "vit_plain", "vit_post_norm"])
def test_a_second_map_is_the_ridge_solution_for_the_stream(
    build: Build, random_masks: RandomMasks, architecture: str, name: str
) -> None:
    model = build(architecture).double()
    pairs = find_pairs(model)
    masks = random_masks([pair for pair in pairs if pair.name == name], 0)
    small, batches = compact(model, masks), batches_for(model)
    is_mlp = name.endswith("mlp")
    second = "blocks.1.mlp.fc2" if is_mlp else "blocks.1.attn.proj"
    # With the stream normed behind the map, the map's own output is wanted.
    behind = {True: "norm", False: "blocks.1.norm2"}[is_mlp]
    if architecture == "vit_post_norm":
        behind = {True: "blocks.1.norm2", False: "blocks.1.norm1"}[is_mlp]
    lost = inputs_of(model, behind, batches) - inputs_of(small, behind, batches)
    block: Any = small.get_submodule("blocks.1")
    scale = getattr(block.ls2 if is_mlp else block.ls1, "gamma", torch.ones(())) if architecture == "vit_plain" else 1
    inputs = inputs_of(small, second, batches).flatten(0, 1)
    design = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
    change = ridge_solution(design, (lost / scale).flatten(0, 1).detach())

    repaired = repair(small, model, batches, kind="second", ridge=RIDGE).get_submodule(second)
    before = small.get_submodule(second)
    torch.testing.assert_close(repaired.weight, before.weight + change[:-1].T)
    torch.testing.assert_close(repaired.bias, before.bias + change[-1])


def attention(model: nn.Module, module: str, inputs: Tensor, head: int, num_heads: int, width: int) -> list[Tensor]:
    """Queries and keys of one head, written out: (samples, tokens, width)."""
    qkv: Any = model.get_submodule(module)
    starts = [head * width, (num_heads + head) * width]
    bias = torch.zeros(qkv.out_features, dtype=inputs.dtype) if qkv.bias is None else qkv.bias
    return [inputs @ qkv.weight[at : at + width].T + bias[at : at + width] for at in starts]


@pytest.mark.parametrize("architecture", ["deit", "vit_plain"])
def test_queries_then_keys_are_ridge_solutions_for_the_logits(build: Build, architecture: str) -> None:
    model = build(architecture, depth=1).double()
    batches, module = batches_for(model), "blocks.0.attn.qkv"
    kept = torch.tensor([True, False, True, True, False, False, True, False])
    small = compact(model, {"blocks.0.attn.qk": kept})
    inputs = inputs_of(model, module, batches)
    num_tokens, width = inputs.shape[1], int(kept.sum())
    centring = torch.eye(num_tokens, dtype=inputs.dtype) - 1 / num_tokens
    repaired = repair(small, model, batches, ridge=RIDGE)
    for head in range(3):
        dense_q, dense_k = attention(model, module, inputs, head, 3, 8)
        own_q, own_k = attention(small, module, inputs, head, 3, width)
        with_one = torch.cat([dense_q, torch.ones_like(dense_q[..., :1])], dim=-1)
        features = with_one if architecture == "deit" else dense_q
        # One row for each logit, one column for each entry of T (width, features): q' = q + T f.
        errors = (dense_q @ dense_k.mT - own_q @ own_k.mT) @ centring
        design = torch.einsum("snf,smc->snmcf", features, centring @ own_k).flatten(3).flatten(0, 2)
        change = ridge_solution(design, errors.reshape(-1, 1).detach()).view(width, -1)
        new_q = own_q + features @ change.T
        errors = (dense_q @ dense_k.mT - new_q @ own_k.mT) @ centring
        design = torch.einsum("snc,smf->snmcf", new_q, centring @ dense_k).flatten(3).flatten(0, 2)
        change = ridge_solution(design, errors.reshape(-1, 1).detach()).view(width, -1)
        new_k = own_k + dense_k @ change.T

        repaired_q, repaired_k = attention(repaired, module, inputs, head, 3, width)
        torch.testing.assert_close(repaired_q, new_q)
        torch.testing.assert_close(repaired_k, new_k)


@pytest.mark.parametrize("architecture", ["deit", "deit_distilled", "swin_shifted", "swin_padded"])
def test_every_single_pair_comes_no_further_from_the_dense_stream(
    build: Build, random_masks: RandomMasks, architecture: str
) -> None:
    model = build(architecture)
    batches, last = batches_for(model), find_pairs(model, per_head=True)[-3:]
    for pair in last:
        small = compact(model, random_masks([pair], 3, keep=0.4))
        behind = pair.module.replace("mlp", "norm2").replace("attn", "norm2")
        behind = "norm" if pair.kind == "mlp" else behind
        wanted = inputs_of(model, behind, batches)
        before, after = (
            float((inputs_of(one, behind, batches) - wanted).square().sum())
            for one in (small, repair(small, model, batches))
        )
        assert after < 0.99 * before


@pytest.mark.parametrize("architecture", ["deit", "swin_padded"])
def test_heads_that_left_and_channels_that_fill_up(build: Build, random_masks: RandomMasks, architecture: str) -> None:
    """The same repair with the removed units as zeros in the dense network, where nothing has moved."""
    model = build(architecture).double()
    pairs, batches = find_pairs(model, per_head=True), batches_for(model)
    masks = random_masks(pairs, 1)
    for pair in pairs:
        if pair.kind == "vo":
            masks[pair.name][: pair.size // pair.num_heads] = False  # the first head leaves
    zeroed = with_zeros(model, pairs, masks)
    repair_in_place(zeroed, model, batches)
    repaired = repair(compact(model, masks), model, batches)
    torch.testing.assert_close(features(repaired, batches), features(zeroed, batches), rtol=1e-6, atol=1e-6)
    for pair in pairs:  # what fills up a head stays out of the function
        for part in unit_weights(zeroed, pair):
            assert not part.parameter.index_select(part.dim, part.index[~masks[pair.name]].flatten()).any()


@pytest.mark.parametrize("kind", ["second", "full"])
def test_the_expected_cost_has_a_pass_to_every_map(
    build: Build, random_masks: RandomMasks, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Half of a network each, on average; the member has a third of the dense one's multiply-adds."""
    model = build("deit")
    pairs, watched = find_pairs(model), []

    def counted(network: nn.Module, *rest: Any) -> list[Tensor]:
        watched.append(1.0 if network is model else 1 / 3)
        return activations(network, *rest)

    monkeypatch.setattr("spp.structure.repair.activations", counted)
    repair(compact(model, random_masks(pairs, 0)), model, batches_for(model, 1), kind=kind)
    size = NetworkSize(1.0, 1.0, 1.0, Counter(pair.kind for pair in pairs))
    assert size.repair_passes(kind, 1 / 3) == pytest.approx(sum(watched) / 2)


def test_batches_only_add_up(build: Build, random_masks: RandomMasks) -> None:
    model = build("deit").double()
    small, batches = compact(model, random_masks(find_pairs(model), 0)), batches_for(model)
    at_once = repair(small, model, [torch.cat(batches)])
    one_by_one = repair(small, model, [{"x": image[None]} for batch in reversed(batches) for image in batch])
    for name, value in at_once.state_dict().items():
        torch.testing.assert_close(one_by_one.state_dict()[name], value, msg=name)


def test_a_network_without_some_tokens_is_compared_at_those_it_has(build: Build, random_masks: RandomMasks) -> None:
    model = build("deit")
    fewer = copy.deepcopy(model)
    drop_tokens(fewer, {"blocks.1": [0, 1, 2, 4, 8, 9, 15, 16]})
    small, batches = compact(fewer, random_masks(find_pairs(fewer), 0)), batches_for(model)
    tokens = torch.tensor([0, 1, 2, 4, 8, 9, 15, 16])
    wanted = inputs_of(model, "norm", batches)[:, tokens]
    before, after = (
        float((inputs_of(one, "norm", batches) - wanted).square().sum())
        for one in (small, repair(small, model, batches))
    )
    assert after < 0.9 * before


def test_a_network_inside_another_one(build: Build, random_masks: RandomMasks) -> None:
    class Holder(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, images: Tensor) -> Any:
            return self.backbone(images)

    model = build("deit")
    masks, batches = random_masks(find_pairs(model), 0), batches_for(model)
    alone = repair(compact(model, masks), model, batches)
    held_masks = {f"backbone.{name}": mask for name, mask in masks.items()}
    held = repair(compact(Holder(model), held_masks), Holder(model), batches)
    assert torch.equal(held(batches[0]), alone(batches[0]))


def test_frozen_weights_and_the_given_networks_stay(build: Build, random_masks: RandomMasks) -> None:
    model = build("deit").train()
    small, batches = compact(model, random_masks(find_pairs(model), 0)), batches_for(model)
    before = [copy.deepcopy(one.state_dict()) for one in (small, model)]
    frozen = ["blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"]
    repaired = repair(small, model, batches, frozen=frozen)
    for one, state in zip((small, model), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    changed = {name for name, value in repaired.state_dict().items() if not torch.equal(value, before[0][name])}
    kept = {name for block in (0, 1) for name in (f"blocks.{block}.attn.proj.weight", f"blocks.{block}.mlp.fc2.weight")}
    assert kept - set(frozen) <= changed
    assert not changed & {*frozen, "blocks.1.mlp.fc2.bias", "blocks.0.mlp.fc1.weight", "head.weight"}
    assert all(one.training for one in (small, model, repaired))
    assert all(parameter.requires_grad for parameter in repaired.parameters())


def test_what_cannot_be_repaired_with(build: Build) -> None:
    model = build("deit")
    small, batch = compact(model, {}), batches_for(model)[0]
    with pytest.raises(ValueError, match="batches: a generator is not allowed: it can be gone through once"):
        repair(small, model, (batch for _ in range(2)))
    with pytest.raises(ValueError, match="batches: there is none"):
        repair(small, model, [])
    with pytest.raises(ValueError, match=r"batches: a tuple is not allowed.*images for images, labels in loader"):
        repair(small, model, [(batch, torch.zeros(4))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="kind: 'most' is not allowed; allowed: second, full"):
        repair(small, model, [batch], kind="most")
