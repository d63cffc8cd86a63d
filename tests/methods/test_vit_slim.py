import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import join
from spp.dynamics.ranking import Ranking
from spp.methods import vit_slim
from spp.methods.vit_slim import ViTSlimConfig


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
    config = ViTSlimConfig(w1=0.3, w2=0.1, lr=0.05, released_quirks=quirks)
    reference, masked = tiny.masked(), tiny.masked()
    batches = tiny.batches(masked, 12)
    gates = plain_gates(reference, batches, config, 0.05, 0.01)
    search = vit_slim.build_search(config, masked, 12)
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
            monkeypatch.setattr("spp.methods._vit_slim.num_devices", lambda devices=devices: devices)
            masked = tiny.masked()
            search = vit_slim.build_search(ViTSlimConfig(w1=4.0, w2=8.0, released_quirks=quirks), masked, 10)
            search.after_backward()  # without a gradient of the task
            gradients[quirks, devices] = sorted(set(search.gates.grad.tolist()))
    assert gradients == {(False, 1): [4, 8], (False, 4): [4, 8], (True, 1): [4, 8], (True, 4): [1, 2]}


def shrunk(tiny, name="vit", per_head=False, num_steps=6, **settings):
    masked = tiny.masked(name, per_head=per_head)
    config = ViTSlimConfig(lr=0.2, **settings)
    search = vit_slim.build_search(config, masked, num_steps)
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
    masks = vit_slim.select(config, ranking, "macs", 0.6)
    missed = 0.6 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert missed >= 0
    if not per_head:
        assert missed < max(pair.macs_per_unit for pair in masked.pairs)
    tiny.assert_compact_is_masked(masked, masks)


def test_the_released_pools_keep_equal_shares(tiny):
    config, masked, search = shrunk(tiny)
    ranking = Ranking.from_scores(search.scores(), masked.pairs)
    masks = vit_slim.select(config, ranking, "units", 0.5)
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
    search = vit_slim.build_search(config, whole, 6)
    tiny.run(search, batches, lr=0.01)
    first = vit_slim.build_search(config, part, 6)
    tiny.run(first, batches[:3], lr=0.01)
    rest = tiny.masked()
    rest.load_state_dict(part.state_dict())
    second = vit_slim.build_search(config, rest, 6)
    second.load_state_dict(first.state_dict())
    tiny.run(second, batches[3:], lr=0.01)
    assert torch.equal(second.gates, search.gates)


def test_settings():
    assert ViTSlimConfig(scope="global").search() == ViTSlimConfig(scope="family").search()
    assert "w1" not in ViTSlimConfig().selection()
    for wrong in ({"w1": -1.0}, {"lr": 0.0}, {"scope": "pool"}, {"min_units": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            ViTSlimConfig(**wrong)


def test_short_searches_take_larger_steps(tiny):
    for num_steps, lr in ((200, 0.01), (100_000, 5e-4)):
        search = vit_slim.build_search(ViTSlimConfig(), tiny.masked(), num_steps)
        assert search.optimizer.param_groups[0]["lr"] == pytest.approx(lr)
