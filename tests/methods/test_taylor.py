import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.ranking import Ranking
from spp.methods.units.taylor.config import TaylorConfig


def plain_scores(masked, batches, order, per_sample):
    """Mean of |g|^order by one backward pass per sample, or per batch."""
    total = {pair.name: torch.zeros(pair.size) for pair in masked.pairs}
    for images, labels in batches:
        groups = [slice(i, i + 1) for i in range(len(images))] if per_sample else [slice(None)]
        for group in groups:
            loss = F.cross_entropy(masked(images[group]), labels[group])
            gradients = torch.autograd.grad(loss, list(masked.masks.values()))
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += gradient.abs() ** order / len(groups)
    return {name: value.double() / len(batches) for name, value in total.items()}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(("name", "per_head"), [("vit", False), ("vit", True), ("swin", False)])
def test_the_score_is_the_mean_over_samples_or_batches(tiny, name, per_head, per_sample, order):
    masked = tiny.masked(name, per_head=per_head)
    batches = tiny.batches(masked, 3)
    expected = plain_scores(masked, batches, order, per_sample)
    masked.model.requires_grad_(False)
    search = tiny.search(TaylorConfig(order=order, per_sample=per_sample), masked, 3)
    tiny.run(search, batches)
    scores = search.scores()
    for pair in masked.pairs:
        torch.testing.assert_close(scores[pair.name], expected[pair.name], rtol=1e-4, atol=1e-7)
        assert torch.equal(masked.masks[pair.name].detach(), torch.ones(pair.size))


def test_networks_called_by_keyword_have_the_same_scores(tiny):
    masked, batches = tiny.masked(), tiny.batches(tiny.masked(), 2)
    by_position, by_keyword = (tiny.search(TaylorConfig(), masked, 2) for _ in range(2))
    tiny.run(by_position, batches)
    for images, labels in batches:
        by_keyword.before_forward()
        F.cross_entropy(masked(attn_mask=None, x=images), labels).backward()
        by_keyword.after_backward()
    assert all(torch.equal(by_keyword.scores()[name], score) for name, score in by_position.scores().items())


def test_a_search_leaves_no_hook_behind(tiny):
    masked = tiny.masked()
    search = tiny.search(TaylorConfig(), masked, 2)
    tiny.run(search, tiny.batches(masked, 2))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in masked.modules())


def test_a_validation_between_forward_and_step_is_not_counted(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 2)
    search, other = (tiny.search(TaylorConfig(), masked, 2) for _ in range(2))
    tiny.run(search, batches)

    def validate(_):
        with torch.no_grad():
            masked(batches[0][0][:3])

    tiny.run(other, batches, after_step=validate)
    assert all(torch.equal(other.scores()[name], score) for name, score in search.scores().items())


def test_a_search_goes_on_where_it_stopped(tiny):
    masked = tiny.masked()
    batches = tiny.batches(masked, 4)
    whole, first, second = (tiny.search(TaylorConfig(), masked, 4) for _ in range(3))
    tiny.run(whole, batches)
    tiny.run(first, batches[:2])
    second.load_state_dict(first.state_dict())
    tiny.run(second, batches[2:])
    assert all(torch.equal(second.scores()[name], score) for name, score in whole.scores().items())


@pytest.mark.parametrize("scope", ["global", "family"])
def test_members_fill_their_budget_and_compact_is_masked(tiny, scope):
    masked = tiny.masked("swin")
    config = TaylorConfig(scope=scope)
    search = tiny.search(config, masked, 2)
    tiny.run(search, tiny.batches(masked, 2))
    masks = tiny.select(config, Ranking.from_scores(search.scores(), masked.pairs), "macs", 0.5)
    missed = 0.5 * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert 0 <= missed < max(pair.macs_per_unit for pair in masked.pairs)
    tiny.assert_compact_is_masked(masked, masks)


def test_no_step_is_refused_and_settings_are_split(tiny):
    with pytest.raises(ValueError, match=r"^method\.name: taylor is not allowed in a search of 0 steps; "):
        tiny.search(TaylorConfig(), tiny.masked(), 0).scores()
    assert TaylorConfig().search_settings("ranking") == {"name": "taylor", "order": 1, "per_sample": True}
    with pytest.raises(ValueError, match=r"^order: 3"):
        TaylorConfig(order=3)
