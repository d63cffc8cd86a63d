"""The energy of units against sums by hand."""

import pytest
import torch

from spp.methods.units.energy.config import EnergyConfig
from spp.structure.activations import Tap, activations


def by_hand(masked, inputs, pair, centred):
    """Channel by channel: what passes the second map, or the queries and the keys of timm's fused Linear."""
    module = masked.model.get_submodule(pair.module)

    def size(channels):
        rows = channels.flatten(0, -2).double()
        return rows.var(0, correction=0) if centred else rows.square().mean(0)

    if pair.kind == "qk":
        (out,) = activations(masked.model, inputs, [Tap(f"{pair.module}.qkv", "output")])
        width = module.proj.in_features
        queries, keys = size(out[..., :width]), size(out[..., width : 2 * width])
        if not pair.per_head:
            queries, keys = (each.view(pair.num_heads, -1).sum(0) for each in (queries, keys))
        energy = queries * keys
    else:
        name = "proj" if pair.kind == "vo" else "fc2"
        (x,) = activations(masked.model, inputs, [Tap(f"{pair.module}.{name}", "input")])
        energy = size(x) * getattr(module, name).weight.double().square().sum(0)
        if pair.kind == "vo" and not pair.per_head:
            energy = energy.view(pair.num_heads, -1).sum(0)
    return (energy - energy.mean()) / energy.std(correction=0)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_the_score_is_the_standardised_energy_over_all_batches(tiny, per_head, centred):
    masked = tiny.masked(per_head=per_head)
    batches = tiny.batches(masked, 3)
    masked.model.requires_grad_(False)
    search = tiny.search(EnergyConfig(centred=centred), masked, 3)
    tiny.run(search, batches)
    images = torch.cat([images for images, _ in batches])
    for pair in masked.pairs:
        expected = by_hand(masked, images, pair, centred)
        torch.testing.assert_close(search.scores()[pair.name], expected, rtol=1e-3, atol=1e-4)


def test_a_search_leaves_no_hook_behind_and_goes_on_where_it_stopped(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 4)
    whole, first, second = (tiny.search(EnergyConfig(), masked, 4) for _ in range(3))
    tiny.run(whole, batches)
    tiny.run(first, batches[:2])
    second.load_state_dict(first.state_dict())
    tiny.run(second, batches[2:])
    assert all(torch.equal(second.scores()[name], score) for name, score in whole.scores().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in masked.modules())


def test_no_step_is_refused(tiny):
    with pytest.raises(ValueError, match=r"^method.name: energy is not allowed in a search of 0 steps; "):
        tiny.search(EnergyConfig(), tiny.masked(), 0).scores()
