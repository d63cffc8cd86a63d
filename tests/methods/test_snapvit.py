"""SnapViT, against what its authors released, written out."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from spp.dynamics.budget import OutOfReachError, split
from spp.dynamics.ranking import Ranking
from spp.methods.bundles import Bundles
from spp.methods.units.snapvit.config import RATIOS, SnapViTConfig
from spp.methods.units.snapvit.evolution import minimise
from spp.methods.units.snapvit.search import after_ratios
from spp.methods.units.snapvit.views import check_embedding, make_views

NUM_HEADS, HEAD_WIDTH = 2, 8


def started(tiny, config, num_steps):
    masked = tiny.masked(per_head=True)
    masked.model.requires_grad_(False)
    return tiny.search(config, masked, num_steps)


def searched(tiny, config, num_steps=3):
    search = started(tiny, config, num_steps)
    torch.manual_seed(1)  # what building the network draws plays no part
    tiny.run(search, tiny.batches(search.masked, num_steps))
    return search


def released_scores(model, batches, config):
    """dino/gradients.py and prunable/base.py: by block, scores of MLP units and of heads."""
    student, teacher = model.requires_grad_(True), copy.deepcopy(model).eval()
    for module in (student, teacher):
        module.head = torch.nn.Identity()
    student.zero_grad()
    for images, _ in batches:
        views = make_views(images, config).transpose(0, 1)  # samples, views, ...
        num_samples, num_views = views.shape[:2]
        with torch.no_grad():
            wanted = F.normalize(teacher(views[:, :2].flatten(0, 1)).reshape(num_samples, 2, -1), dim=-1).softmax(-1)
        found = F.normalize(student(views.flatten(0, 1)).reshape(num_samples, num_views, -1), dim=-1).log_softmax(-1)
        losses = torch.zeros(num_samples)
        for t in range(2):
            for s in range(num_views):
                if t != s:
                    losses += (-wanted[:, t] * found[:, s]).sum(-1)
        losses.mean().backward()
    mlps = [(block.mlp.fc1.weight.grad**2).mean(1) for block in model.blocks]
    heads = [
        (block.attn.qkv.weight.grad.reshape(3, NUM_HEADS, HEAD_WIDTH, -1)[2] ** 2).mean((1, 2))
        for block in model.blocks
    ]
    return mlps, heads


@pytest.mark.parametrize("config", [SnapViTConfig(num_evaluations=0), SnapViTConfig(num_evaluations=0, views="noise")])
def test_scores_are_the_released_ones_with_the_first_factors(tiny, config):
    """All steps; the views of both are drawn by one generator, and the images of a step go through at once."""
    search = searched(tiny, config, num_steps=25)
    model, batches = tiny.build(), tiny.batches(search.masked, 25)
    torch.manual_seed(1)
    mlps, heads = released_scores(model, batches, config)
    scores = search.scores()
    ratio = scores["blocks.0.mlp"][0] / (1.2 * mlps[0][0])
    for i, factor in enumerate((1.2, 0.8)):
        torch.testing.assert_close(scores[f"blocks.{i}.mlp"], ratio * factor * mlps[i].double(), rtol=2e-3, atol=0)
        expected = (ratio * factor * heads[i].double()).repeat_interleave(HEAD_WIDTH)
        for kind in ("qk", "vo"):
            torch.testing.assert_close(scores[f"blocks.{i}.attn.{kind}"], expected, rtol=2e-3, atol=0)


def test_the_evolution_takes_the_factors_whose_pruned_networks_are_nearest(tiny):
    """Its fitness is written out with zeros in the weights, and is below that of the first factors."""
    config = SnapViTConfig(num_evaluations=12, num_components=5, views="noise")
    search = searched(tiny, config)
    images = torch.cat([images for images, _ in tiny.batches(search.masked, 3)])
    dense = tiny.build()

    def fitness(weighed):
        with torch.no_grad():
            embeddings = dense.forward_head(dense.forward_features(images), pre_logits=True)
            mean = embeddings.mean(0)
            axes = torch.linalg.eigh((embeddings - mean).T @ (embeddings - mean)).eigenvectors[:, -5:]
            total = 0.0
            for mlp_ratio, head_ratio in RATIOS:
                pruned = copy.deepcopy(dense)
                for name, ratio, best in (("mlp", mlp_ratio, 1), ("attn.vo", head_ratio, 1)):
                    parts = [weighed[f"blocks.{i}.{name}"][:: 1 if name == "mlp" else HEAD_WIDTH] for i in (0, 1)]
                    kept_anyway = [part >= part.topk(best).values[-1] for part in parts]
                    flat = torch.where(torch.cat(kept_anyway), torch.inf, torch.cat(parts))
                    gone = flat.argsort()[: int(ratio * len(flat))]
                    size = len(parts[0])
                    for number in gone.tolist():
                        block, unit = pruned.blocks[number // size], number % size
                        if name == "mlp":
                            block.mlp.fc2.weight[:, unit] = 0
                        else:
                            block.attn.proj.weight[:, unit * HEAD_WIDTH : (unit + 1) * HEAD_WIDTH] = 0
                found = pruned.forward_head(pruned.forward_features(images), pre_logits=True)
                total += float(1 - F.cosine_similarity((embeddings - mean) @ axes, (found - mean) @ axes).mean())
            return total / 4

    assert search.summary()["fitness"] == pytest.approx(fitness(search.scores()), abs=1e-5)
    assert search.fitness <= fitness(searched(tiny, SnapViTConfig(num_evaluations=0, views="noise")).scores()) + 0.05


def test_one_generation_of_the_evolution_is_that_of_the_paper():
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    num = 4 + math.floor(3 * math.log(3))

    def fitness(point):
        seen.append(point.clone())
        return float(point.square().sum())

    seen: list[torch.Tensor] = []
    best, value = minimise(fitness, start, num + 2, torch.Generator().manual_seed(1))
    drawn = torch.randn(num, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = sorted(range(num), key=lambda i: float((start + drawn[i]).square().sum()))
    raw = [max(0.0, math.log(num / 2 + 1) - math.log(k + 1)) for k in range(num)]
    utility = {i: raw[k] / sum(raw) - 1 / num for k, i in enumerate(order)}
    mean = start + sum(utility[i] * drawn[i] for i in range(num))
    gradient = sum(
        utility[i] * (torch.outer(drawn[i], drawn[i]) - torch.eye(3, dtype=torch.float64)) for i in range(num)
    )
    factor = torch.linalg.matrix_exp(0.3 * (3 + math.log(3)) / (3 * 3**0.5) * gradient)
    generator = torch.Generator().manual_seed(1)
    torch.randn(num, 3, generator=generator, dtype=torch.float64)
    second = torch.randn(num, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(seen[num], mean + factor @ second[0])
    assert len(seen) == num + 2
    assert value == min(float(point.square().sum()) for point in seen) == float(best.square().sum())


def test_200_evaluations_are_those_of_the_paper_written_out():
    """Generation after generation: mean and factor of the Gaussian follow the ranks of what was drawn."""

    def fitness(point):
        seen.append(point.clone())
        return float((point - 0.3).square().sum() + point[0] * point[1])

    seen: list[torch.Tensor] = []
    minimise(fitness, torch.tensor([1.2, 1.0, 0.8], dtype=torch.float64), 200, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    mean, factor = torch.tensor([1.2, 1.0, 0.8], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    expected: list[torch.Tensor] = []
    raw = [max(0.0, math.log(4.5) - math.log(rank)) for rank in range(1, 8)]
    utilities = [value / sum(raw) - 1 / 7 for value in raw]
    while len(expected) < 200:
        drawn = torch.randn(7, 3, generator=generator, dtype=torch.float64)
        points = [mean + factor @ one for one in drawn]
        expected += points
        ranked = sorted(range(7), key=lambda i: float((points[i] - 0.3).square().sum() + points[i][0] * points[i][1]))
        step = sum(utility * drawn[i] for utility, i in zip(utilities, ranked, strict=True))
        turn = sum(
            utility * (torch.outer(drawn[i], drawn[i]) - torch.eye(3, dtype=torch.float64))
            for utility, i in zip(utilities, ranked, strict=True)
        )
        mean = mean + factor @ step
        factor = factor @ torch.linalg.matrix_exp(0.3 * (3 + math.log(3)) / (3 * 3**0.5) * turn)
    assert len(seen) == 200
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected[:200]), rtol=1e-6, atol=1e-8)


def test_the_evolution_finds_the_bottom_of_a_bowl():
    best, value = minimise(
        lambda point: float((point - 0.3).square().sum()),
        torch.full((4,), 2.0, dtype=torch.float64),
        1500,
        torch.Generator().manual_seed(0),
    )
    assert value < 1e-3
    assert best.tolist() == pytest.approx([0.3] * 4, abs=0.05)


def test_each_crop_has_a_box_of_its_own_unless_as_released():
    images = torch.rand(3, 1, 16, 16)
    views = make_views(images, SnapViTConfig())
    assert views.shape == (12, 3, 1, 16, 16)
    assert all(not torch.equal(views[a], views[b]) for a in range(12) for b in range(a))
    released = make_views(images, SnapViTConfig(released_quirks=True))
    assert all(torch.equal(released[0], view) for view in released[:2])
    assert all(torch.equal(released[2], view) for view in released[2:])
    assert not torch.equal(released[0], released[2])


def test_members_have_whole_heads_and_are_nested(tiny):
    config = SnapViTConfig(num_evaluations=3, views="noise")
    path = searched(tiny, config).order({})
    larger = None
    for size in (1.0, 0.8, 0.6, 0.5):
        masks = tiny.select(config, path, "macs", size)
        for i in (0, 1):
            for kind in ("qk", "vo"):
                by_head = masks[f"blocks.{i}.attn.{kind}"].view(NUM_HEADS, HEAD_WIDTH)
                assert torch.equal(by_head.any(1), by_head.all(1))
        assert larger is None or all(bool((mask <= larger[name]).all()) for name, mask in masks.items())
        assert tiny.achieved(tiny.build(), masks).macs <= size * path.pairs[0].model_cost.macs
        larger = masks
    with pytest.raises(OutOfReachError, match=r"^budget.multiple_of: 8 is not allowed with method=snapvit") as caught:
        tiny.select(config, path.rounded_to(8), "macs", 0.5)
    assert "\n" not in str(caught.value)
    wide = SnapViTConfig(min_mlp_share=0.9)
    with pytest.raises(OutOfReachError, match=r"^budget\.values: 0\.4 cannot be reached with .*min_mlp_share=0\.9"):
        tiny.select(wide, path, "macs", 0.4)


def test_what_scores_nothing_goes_at_every_budget_as_released(tiny):
    path = searched(tiny, SnapViTConfig(num_evaluations=0)).order({})
    path.scores["blocks.0.mlp"][:5] = 0
    plain, quirky = (tiny.select(SnapViTConfig(released_quirks=on), path, "macs", 1.0) for on in (False, True))
    assert all(bool(mask.all()) for mask in plain.values())
    assert quirky["blocks.0.mlp"].logical_not().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_every_block_keeps_its_best_whatever_the_ratio(tiny):
    bundles = Bundles.heads(tiny.masked(per_head=True).pairs, with_mlp=True)
    scores = torch.rand(len(bundles), dtype=torch.float64)
    scores[bundles.group_of == 1] /= 1e3  # the MLP of the first block
    left = after_ratios(bundles, scores, (0.5, 0.5), SnapViTConfig(min_mlp_share=0.25))
    assert int(left[bundles.group_of == 1].sum()) == 8
    assert int(left.sum()) == 34


def test_a_search_goes_on_where_it_was(tiny, tmp_path):
    config, batches = SnapViTConfig(num_evaluations=3), tiny.batches(tiny.masked(), 4)
    whole = searched(tiny, config, 4)
    first, rest = (started(tiny, config, 4) for _ in range(2))
    torch.manual_seed(1)
    tiny.run(first, batches[:2])
    torch.save(first.state_dict(), tmp_path / "state")
    rest.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    tiny.run(rest, batches[2:])
    assert all(torch.equal(rest.scores()[name], score) for name, score in whole.scores().items())


def test_so_many_samples_are_looked_at(tiny):
    few = searched(tiny, SnapViTConfig(num_samples=12, num_evaluations=0), 4)
    more = searched(tiny, SnapViTConfig(num_evaluations=0), 4)
    assert (few.summary()["num_samples"], more.summary()["num_samples"]) == (12, 32)


def test_what_cannot_be_searched_is_refused_in_one_line(tiny):
    with pytest.raises(ValueError, match=r"^method.name: snapvit is not allowed in a search of 0 steps"):
        started(tiny, SnapViTConfig(), 0).scores()
    with pytest.raises(ValueError, match=r"^method.name: snapvit needs the embeddings .*Linear has no"):
        check_embedding(torch.nn.Linear(1, 1))


def test_along_the_released_line_members_are_those_of_the_released_pairs_of_ratios(tiny):
    """Which MLP units and heads are gone is told by the ratios alone; a budget is the cost of what they leave."""
    config = SnapViTConfig(scope="released", min_mlp_share=0.05)
    pairs = tiny.masked(per_head=True).pairs
    bundles = Bundles.heads(pairs, with_mlp=True)
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(len(bundles), generator=generator, dtype=torch.float64)
    path = Ranking.from_scores(dict(split(pairs, bundles.expand(scores))), pairs)
    for mlp in (0.15, 0.25, 0.5, 0.65):
        expected = bundles.masks(after_ratios(bundles, scores, (mlp, mlp - 0.15), config))
        found = tiny.select(config, path, "macs", path.cost_of(expected).macs)
        assert all(torch.equal(mask, expected[name]) for name, mask in found.items())
