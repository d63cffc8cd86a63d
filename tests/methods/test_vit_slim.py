import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import join
from spp.dynamics.ranking import Ranking
from spp.methods.units.vit_slim.config import ViTSlimConfig
from spp.methods.units.vit_slim.tokens import select_tokens
from spp.structure.find import find_pairs

NUM_STEPS = 200
"""Beside the released rules."""


def plain_gates(masked, batches, config, lr, steps_of_weights):
    """The released search on blocks of a timm ViT, written out: one gate for q, k and v of a channel, AdamW, L1.

    The weights take plain SGD steps of size `steps_of_weights`.
    """
    blocks = masked.model.blocks
    gates = {}
    for index, block in enumerate(blocks):
        gates[f"blocks.{index}.attn"] = torch.ones(block.attn.head_dim, requires_grad=True)
        gates[f"blocks.{index}.mlp"] = torch.ones(block.mlp.fc1.out_features, requires_grad=True)
    optimizer = torch.optim.AdamW(gates.values(), lr=lr, weight_decay=1e-3 if config.released_quirks else 0.0)
    weights = list(masked.model.parameters())
    for images, labels in batches:
        handles = []
        for index, block in enumerate(blocks):
            attention, hidden = gates[f"blocks.{index}.attn"], gates[f"blocks.{index}.mlp"]
            every = attention.repeat(3 * block.attn.num_heads)
            handles.append(block.attn.qkv.register_forward_hook(lambda m, a, out, z=every: out * z))
            handles.append(block.mlp.act.register_forward_hook(lambda m, a, out, z=hidden: out * z))
        loss = F.cross_entropy(masked.model(images), labels)
        for name, gate in gates.items():
            loss = loss + (config.w1 if name.endswith("attn") else config.w2) * gate.abs().sum()
        for handle in handles:
            handle.remove()
        optimizer.zero_grad()
        for weight in weights:
            weight.grad = None
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight in weights:
                weight -= steps_of_weights * weight.grad
    return gates


@pytest.mark.parametrize("quirks", [False, True])
def test_the_search_is_the_released_one(tiny, quirks):
    config = ViTSlimConfig(w1=0.3, w2=0.1, lr=0.005, released_quirks=quirks)
    reference, masked = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, NUM_STEPS)
    gates = plain_gates(reference, batches, config, 0.005, 0.01)
    search = tiny.search(config, masked, NUM_STEPS)
    tiny.run(search, batches, lr=0.01)
    expected = torch.cat([gate.detach() for gate in gates.values()]).double()
    torch.testing.assert_close(search.gates, expected, rtol=1e-3, atol=1e-4)
    for block in range(2):
        attention, hidden = gates[f"blocks.{block}.attn"].detach(), gates[f"blocks.{block}.mlp"].detach()
        for kind, mask in (("attn.qk", attention**2), ("attn.vo", attention), ("mlp", hidden)):
            torch.testing.assert_close(masked.masks[f"blocks.{block}.{kind}"].detach(), mask, rtol=1e-3, atol=1e-4)


def test_only_the_quirks_divide_the_penalty_by_the_devices(tiny, monkeypatch):
    gradients = {}
    for quirks in (False, True):
        for devices in (1, 4):
            monkeypatch.setattr("spp.methods.units.vit_slim.gates.num_devices", lambda devices=devices: devices)
            masked = tiny.masked()
            search = tiny.search(ViTSlimConfig(w1=4.0, w2=8.0, released_quirks=quirks), masked, 10)
            search.after_backward()  # without a gradient of the task
            gradients[quirks, devices] = sorted(set(search.gates.grad.tolist()))
    assert gradients == {(False, 1): [4, 8], (False, 4): [4, 8], (True, 1): [4, 8], (True, 4): [1, 2]}


def shrunk(tiny, name="vit", per_head=False, num_steps=6, **settings):
    masked = tiny.masked(name, per_head=per_head)
    config = ViTSlimConfig(lr=0.2, **settings)
    search = tiny.search(config, masked, num_steps)
    tiny.run(search, tiny.batches(masked, num_steps), lr=0.01)
    return config, masked, search


def test_quirks_rank_by_the_signed_gate_and_nothing_else_does(tiny):
    _, masked, search = shrunk(tiny, w1=0.0, w2=0.0)
    search.gates.copy_(torch.linspace(-1, 1, len(search.gates)))
    _, _, quirky = shrunk(tiny, w1=0.0, w2=0.0, released_quirks=True)
    quirky.gates.copy_(search.gates)
    signed, plain = (join(masked.pairs, s.scores()) for s in (quirky, search))
    assert (signed < 0).any()
    torch.testing.assert_close(signed.abs(), plain)


def test_one_gate_for_a_head_is_the_sum_of_its_channels(tiny):
    config = ViTSlimConfig(unit="head", w1=0.3, w2=0.1, lr=0.05)
    masked = tiny.masked(per_head=True)
    search = tiny.search(config, masked, 1)
    ((images, labels),) = tiny.batches(masked, 1)
    F.cross_entropy(masked(images), labels).backward()
    by_head = [
        2 * masked.masks[f"blocks.{i}.attn.qk"].grad.view(2, -1).sum(1)
        + masked.masks[f"blocks.{i}.attn.vo"].grad.view(2, -1).sum(1)
        for i in range(2)
    ]
    search.after_backward()
    expected = torch.cat(by_head).double() + 0.3
    torch.testing.assert_close(search.gates.grad[~search.is_mlp], expected, rtol=1e-4, atol=1e-6)
    for i in range(2):
        for kind in ("qk", "vo"):
            assert len(masked.masks[f"blocks.{i}.attn.{kind}"].detach().view(2, -1).unique(dim=1)[0]) == 1
    assert config.needs_heads
    assert not ViTSlimConfig().needs_heads


def test_frozen_weights_leave_the_norms_to_train(tiny):
    names = [name for name, _ in tiny.masked().model.named_parameters()]
    plain, frozen = (tiny.search(ViTSlimConfig(freeze_weights=f), tiny.masked(), 2) for f in (False, True))
    assert all(plain.trains(name) for name in names)
    assert {name for name in names if frozen.trains(name)} == {
        f"{norm}.{part}"
        for norm in ("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm")
        for part in ("weight", "bias")
    }


def test_a_weight_of_zero_leaves_a_family_alone(tiny):
    _, _, search = shrunk(tiny, w1=0.0, w2=0.1)
    assert bool((search.gates[~search.is_mlp] == 1).all())
    assert bool((search.gates[search.is_mlp] != 1).all())
    assert search.metrics()["gate_attention"] == 1


def test_a_stronger_penalty_leaves_smaller_gates(tiny):
    means = [shrunk(tiny, w1=w, w2=w, num_steps=12)[2].metrics() for w in (1e-3, 0.3, 3.0)]
    for family in ("gate_attention", "gate_mlp"):
        assert means[0][family] > means[1][family] > means[2][family]


def test_priced_penalties_follow_the_costs(tiny):
    _, masked, search = shrunk(tiny, "swin", w1=0.1, priced=True)
    costs = search.bundles.costs("macs")
    torch.testing.assert_close(search.strength / costs, (search.strength / costs)[:1].expand(len(costs)))
    assert float(search.strength[~search.is_mlp].mean()) == pytest.approx(0.1)
    assert not search.per_cost
    gates = search.bundles.expand(search.gates.abs())
    torch.testing.assert_close(join(masked.pairs, search.scores()), gates)


def test_a_tied_gate_is_worth_its_units_together(tiny):
    _, masked, search = shrunk(tiny, "swin")
    assert torch.allclose(search.bundles.reduce(join(masked.pairs, search.scores())), search.gates.abs())
    order = Ranking.from_scores(search.scores(), masked.pairs).order(scope="global", min_units=0).tolist()
    at = {(masked.pairs[p].name, u): place for place, (p, u) in enumerate(order)}
    pairs = [pair for pair in masked.pairs if pair.kind == "qk"]
    # Per cost its two halves are level, so that they stay or go together.
    assert all(abs(at[p.name, u] - at[p.name[:-2] + "vo", u]) == 1 for p in pairs for u in range(p.size))


@pytest.mark.parametrize(
    ("name", "per_head", "settings"),
    [
        ("vit", False, {}),
        ("vit", True, {}),
        ("vit", True, {"tied": False, "scope": "global"}),
        ("swin", False, {}),
        ("swin", False, {"tied": False, "priced": True, "scope": "global"}),
    ],
)
def test_members_fill_their_budget_and_compact_is_masked(tiny, name, per_head, settings):
    config, masked, search = shrunk(tiny, name, per_head, **settings)
    ranking = Ranking.from_scores(search.scores(), masked.pairs, per_cost=search.per_cost)
    masks = tiny.select(config, ranking, "macs", 0.6)
    missed = 0.6 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert missed >= 0
    if not per_head:
        assert missed < max(pair.macs_per_unit for pair in masked.pairs)
    tiny.assert_compact_is_masked(masked, masks)


def test_the_released_pools_keep_equal_shares(tiny):
    config, masked, search = shrunk(tiny)
    ranking = Ranking.from_scores(search.scores(), masked.pairs)
    masks = tiny.select(config, ranking, "units", 0.5)
    gates = {
        pair.name: search.bundles.expand(search.gates.abs()).split([p.size for p in masked.pairs])[i]
        for i, pair in enumerate(masked.pairs)
    }
    for is_mlp in (False, True):
        pool = [pair.name for pair in masked.pairs if (pair.kind == "mlp") == is_mlp]
        values, kept = (torch.cat([part[name] for name in pool]) for part in (gates, masks))
        assert abs(int(kept.sum()) - 0.5 * len(kept)) <= 1
        assert float(values[kept].min()) >= float(values[~kept].max()) - 1e-12


def test_a_search_goes_on_where_it_stopped(tiny):
    config = ViTSlimConfig(lr=0.1)
    whole, part = tiny.masked(), tiny.masked()
    batches = tiny.batches(whole, 6)
    search = tiny.search(config, whole, 6)
    tiny.run(search, batches, lr=0.01)
    first = tiny.search(config, part, 6)
    tiny.run(first, batches[:3], lr=0.01)
    rest = tiny.masked()
    rest.load_state_dict(part.state_dict())
    second = tiny.search(config, rest, 6)
    second.load_state_dict(first.state_dict())
    tiny.run(second, batches[3:], lr=0.01)
    assert torch.equal(second.gates, search.gates)


def plain_token_gates(masked, batches, config, lr, steps_of_weights):
    """The released gates on tokens, written out, but for the class token's; those on units stay at 1."""
    blocks, zeta = masked.model.blocks, torch.full((2, 4), 3.0, requires_grad=True)
    optimizer = torch.optim.AdamW([zeta], lr=lr, weight_decay=1e-3 if config.released_quirks else 0.0)
    weights = list(masked.model.parameters())
    for images, labels in batches:
        gates = [torch.cat([torch.ones(1), row.tanh()])[:, None] for row in zeta]
        norms = [(norm, gate) for block, gate in zip(blocks, gates, strict=True) for norm in (block.norm1, block.norm2)]
        handles = [norm.register_forward_hook(lambda m, a, out, z=gate: out * z) for norm, gate in norms]
        loss = F.cross_entropy(masked.model(images), labels) + config.token_weight * zeta.tanh().abs().sum()
        for variable in (zeta, *weights):
            variable.grad = None
        loss.backward()
        optimizer.step()
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for weight in weights:
                weight -= steps_of_weights * weight.grad
    return zeta.detach().double()


@pytest.mark.parametrize(("quirks", "num_steps", "lr"), [(False, 16, 0.2), (True, NUM_STEPS, 0.01)])
def test_the_gates_on_tokens_are_the_released_ones(tiny, quirks, num_steps, lr):
    config = ViTSlimConfig(w1=0.0, w2=0.0, tokens=0.5, token_weight=0.01, lr=lr, released_quirks=quirks)
    reference, masked = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, num_steps)
    zeta = plain_token_gates(reference, batches, config, lr, 0.01)
    search = tiny.search(config, masked, num_steps)
    tiny.run(search, batches, lr=0.01)
    assert zeta.std() > 0.1 * lr
    assert zeta.mean() < 2
    torch.testing.assert_close(search.zeta, zeta, rtol=1e-3, atol=1e-3)
    masks = torch.stack([*masked.mask_tokens().values()])
    assert masks.shape == zeta.shape
    assert search.metrics()["gate_tokens"] == pytest.approx(float(zeta.tanh().abs().mean()), rel=1e-3)


def test_only_the_quirks_divide_the_penalty_on_tokens_by_the_devices(tiny, monkeypatch):
    pulls = {}
    for quirks in (False, True):
        for devices in (1, 4):
            monkeypatch.setattr("spp.methods.units.vit_slim.tokens.num_devices", lambda devices=devices: devices)
            config = ViTSlimConfig(tokens=0.5, token_weight=8.0, released_quirks=quirks)
            search = tiny.search(config, tiny.masked(), 10)
            slope = 1 - search.zeta.tanh() ** 2
            search.after_backward()  # without a gradient of the task
            pulls[quirks, devices] = sorted({round(pull, 9) for pull in (search.zeta.grad / slope).flatten().tolist()})
    assert pulls == {(False, 1): [8], (False, 4): [8], (True, 1): [8], (True, 4): [2]}


def brute_force_selection(worth, share):
    """Keep the best, one by one, then walk the blocks from the last to the first."""
    num_blocks, num_patches = len(worth), len(worth[0])
    places = [(-worth[b][p], b, p) for b in range(num_blocks) for p in range(num_patches)]
    kept = {(b, p) for _, b, p in sorted(places)[: max(1, round(share * len(places)))]}
    kept.add((num_blocks - 1, max(range(num_patches), key=lambda p: worth[-1][p])))
    for block in reversed(range(num_blocks - 1)):
        kept |= {(block, p) for p in range(num_patches) if (block + 1, p) in kept}
    return [[(b, p) in kept for p in range(num_patches)] for b in range(num_blocks)]


@pytest.mark.parametrize("share", [1e-6, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_later_block_keeps_stays_before_it(share, seed):
    worth = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed)) - 0.3
    worth[seed % 5] = worth[0, 0]  # ties
    assert select_tokens(worth, share).tolist() == brute_force_selection(worth.tolist(), share)


def test_quirks_select_tokens_by_the_signed_gate_and_nothing_else_does(tiny):
    for quirks, last in ((False, [0, 1, 4]), (True, [0, 3, 4])):
        search = tiny.search(ViTSlimConfig(tokens=0.5, released_quirks=quirks), tiny.masked(), 4)
        search.zeta.copy_(torch.tensor([[-3.0, 0.1, 0.2, 2.0], [-1.0, 0.1, 0.3, 1.0]]))
        assert search.kept_tokens() == {"blocks.0": last, "blocks.1": last}


@pytest.mark.parametrize(("per_head", "scope"), [(False, "family"), (False, "global"), (True, "family")])
def test_members_without_tokens_fill_their_budget_and_compact_is_masked(tiny, per_head, scope):
    config, masked, search = shrunk(tiny, per_head=per_head, scope=scope, tokens=0.5, token_weight=0.1)
    dense, kept = masked.pairs[0].model_cost, search.kept_tokens()
    # The class token and 4 patches, of which some have left in the last block at least.
    assert len(kept["blocks.1"]) < 5
    assert set(kept["blocks.1"]) <= set(kept["blocks.0"])
    assert kept["blocks.1"][0] == 0
    ranking = search.order({})
    pairs = ranking.pairs
    assert ranking.tokens == kept
    assert ranking.dense_total("macs") == dense.macs
    assert pairs == find_pairs(masked.model, per_head=per_head)
    assert pairs[0].model_cost.macs < dense.macs
    masks = tiny.select(config, ranking, "macs", 0.4)
    missed = 0.4 * dense.macs - tiny.achieved(masked.model, masks).macs
    assert missed >= 0
    if not per_head:
        assert missed < max(pair.macs_per_unit for pair in pairs)
    walked = type(masked)(masked.model, masked.pairs)  # the masks of a walk, without gates on tokens
    tiny.assert_compact_is_masked(walked, masks)


def test_a_search_with_tokens_goes_on_where_it_stopped(tiny):
    config = ViTSlimConfig(lr=0.1, tokens=0.5, token_weight=0.05)
    masked = [tiny.masked() for _ in range(3)]
    searches = [tiny.search(config, each, 6) for each in masked]
    batches = tiny.batches(masked[0], 6)
    tiny.run(searches[0], batches, lr=0.01)
    tiny.run(searches[1], batches[:3], lr=0.01)
    masked[2].load_state_dict(masked[1].state_dict())
    searches[2].load_state_dict(searches[1].state_dict())
    tiny.run(searches[2], batches[3:], lr=0.01)
    assert torch.equal(searches[2].zeta, searches[0].zeta)
    assert torch.equal(searches[2].gates, searches[0].gates)


def test_tokens_cannot_leave_a_swin(tiny):
    with pytest.raises(
        ValueError, match=r"^method.tokens: 0.7 is not allowed with this SwinTransformer.*; allowed: 1,"
    ):
        tiny.search(ViTSlimConfig(tokens=0.7), tiny.masked("swin"), 4)


def test_without_tokens_nothing_is_other_than_it_was(tiny):
    _, masked, search = shrunk(tiny)
    assert not any(name.startswith("token") for name in [*masked.state_dict(), *search.state_dict()])
    assert set(search.metrics()) == {"gate_attention", "gate_mlp"}
    assert search.kept_tokens() == {}
    assert set(Ranking.from_scores(search.scores(), masked.pairs).meta) == {"per_cost", "dense", "provenance"}


def test_settings():
    assert ViTSlimConfig(scope="global").search_settings("ranking") == ViTSlimConfig(scope="family").search_settings(
        "ranking"
    )
    assert "w1" not in ViTSlimConfig().selection_settings()
    wrongs = ({"w1": -1.0}, {"lr": 0.0}, {"scope": "pool"}, {"min_units": -1}, {"tokens": 0.0}, {"token_weight": 0.0})
    for wrong in wrongs:
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            ViTSlimConfig(**wrong)


def test_a_weight_of_gates_on_tokens_that_are_not_there_is_refused():
    for values in ({"token_weight": 3e-4}, {"token_weight": 3e-4, "tokens": 1}):
        with pytest.raises(ValueError, match=r"^method\.token_weight: 0\.0003 is not allowed; allowed: 0\.0001, "):
            ViTSlimConfig.read({"name": "vit_slim", **values}, "method")
    assert ViTSlimConfig(tokens=1, token_weight=1e-4).search_settings("ranking") == ViTSlimConfig().search_settings(
        "ranking"
    )
    assert ViTSlimConfig(tokens=0.7, token_weight=3e-4).search_settings("ranking")["token_weight"] == 3e-4


def test_short_searches_take_larger_steps(tiny):
    for num_steps, lr in ((200, 0.01), (100_000, 5e-4)):
        search = tiny.search(ViTSlimConfig(), tiny.masked(), num_steps)
        assert search.optimizer.param_groups[0]["lr"] == pytest.approx(lr)
    # From 3 to 0 it is three times as far as from 1.
    search = tiny.search(ViTSlimConfig(tokens=0.5), tiny.masked(), 200)
    assert search.token_optimizer.param_groups[0]["lr"] == pytest.approx(0.03)
