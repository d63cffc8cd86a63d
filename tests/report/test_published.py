"""What is published, and that the commands beside it do what they say."""

import shlex

import pytest

from spp.cli.points import compose_points
from spp.plan.numbers import parse_size
from spp.report.published import load_published

PUBLISHED = load_published()
VALUES = [value for value in PUBLISHED.values if value.words]
RECIPES = [recipe for recipe in PUBLISHED.recipes if recipe.words]


def config_of(words):
    (point,) = compose_points([*shlex.split(words), "paths.data=/data"], multirun=False)
    return point


def test_the_numbers_are_those_of_the_sources():
    assert sorted((v.table, v.method, v.model, v.metric, v.value) for v in PUBLISHED.values) == sorted(
        [
            ("table1", "wdpruning", "deit_small", "top1", 78.4),
            ("table1", "spp", "deit_small", "top1", 78.9),
            ("table1", "spp", "deit_base", "top1", 81.2),
            ("table1", "spp", "deit_small", "top1", 80.2),
            ("table1", "spp", "swin_tiny", "top1", 80.6),
            ("table1", "upop", "deit_small", "top1", 80.2),
            ("table1", "upop", "deit_small", "top5", 95.1),
            ("table1", "wdpruning", "deit_tiny", "top1", 71.1),
            ("retrieval", "spp", "clip_large", "i2t_r1", 70.8),
            ("retrieval", "upop", "clip_large", "i2t_r1", 70.8),
            ("retrieval", "upop", "clip_large", "t2i_r1", 53.1),
            ("llm", "spp", "llama2_7b", "arc_easy", 71.8),
        ]
    )
    assert all(entry.source for entry in (*PUBLISHED.values, *PUBLISHED.recipes, *PUBLISHED.searches))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value.method}-{value.model}-{value.budget:g}")
def test_a_cells_command_runs_that_cell(value):
    point = config_of(value.words)
    cfg = point.cfg
    assert (point.model, cfg["method"]["name"], cfg["data"]["name"]) == (value.model, value.method, "imagefolder")
    assert cfg["budget"]["kind"] == value.budget_kind
    assert value.budget in [parse_size(size, "values") for size in cfg["budget"]["values"]]
    search = cfg["update"] if value.method == "spp" else cfg["search"]
    assert search["epochs"] + cfg["prune"]["epochs"] == value.search_epochs
    assert cfg["finetune"]["epochs"] == value.finetune_epochs


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.model)
def test_a_recipes_command_has_the_recipe(recipe):
    point = config_of(recipe.words)
    cfg = point.cfg
    stages = [cfg[stage]["epochs"] for stage in ("update", "prune", "finetune")]
    assert stages == [recipe.update_epochs, recipe.prune_epochs, recipe.finetune_epochs]
    assert (point.model, cfg["finetune"]["batch_size"], cfg["finetune"]["lr"]) == (
        recipe.model,
        recipe.batch_size,
        recipe.lr,
    )
    sizes = [parse_size(size, "values") for size in cfg["budget"]["values"]]
    shares = [
        size if size <= 1 else size / getattr(PUBLISHED.dense[recipe.model], cfg["budget"]["kind"]) for size in sizes
    ]
    assert shares == pytest.approx(list(recipe.budgets), abs=1e-3)


def test_a_budget_as_a_fraction():
    by_budget = {value.budget: PUBLISHED.fraction(value) for value in PUBLISHED.values}
    assert by_budget[0.706] == 0.706
    assert by_budget[2.6e9] == pytest.approx(2.6 / 4.6083)
    assert by_budget[473.7e6] is None  # how large the dense CLIP is, is not known
