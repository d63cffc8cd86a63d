import pytest

from spp.plan.recipes import RECIPES, PruneConfig, RecipeConfig, SearchConfig, UpdateConfig

RECIPE = {"epochs": 3, "batch_size": 8, "lr": 1e-3}


def test_reads_a_mapping_and_gives_it_back():
    recipe = RecipeConfig.read({**RECIPE, "mixup": 0.8}, "dense")
    assert recipe.plain()["mixup"] == 0.8
    assert RecipeConfig.read(recipe.plain(), "dense") == recipe


def test_an_unknown_field_is_named_with_what_was_probably_meant():
    with pytest.raises(ValueError, match=r"dense\.epoch: unknown field.*did you mean dense\.epochs") as caught:
        RecipeConfig.read({**RECIPE, "epoch": 3}, "dense")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "values", "named"),
    [
        (RecipeConfig, {**RECIPE, "epochs": -1}, "x.epochs: -1"),
        (RecipeConfig, {**RECIPE, "epochs": "many"}, "x.epochs: 'many'"),
        (RecipeConfig, {**RECIPE, "epochs": True}, "x.epochs: True"),
        (RecipeConfig, {**RECIPE, "lr": 0}, "x.lr: 0"),
        (RecipeConfig, {**RECIPE, "drop_path": 1.5}, "x.drop_path: 1.5"),
        (RecipeConfig, {**RECIPE, "warmup_epochs": 4}, "x.warmup_epochs: 4"),
        (RecipeConfig, {**RECIPE, "select": "worst"}, "x.select: 'worst'"),
        (RecipeConfig, {"epochs": 3}, "x: required fields are missing"),
        (SearchConfig, {**RECIPE, "select": "best"}, "x.select: 'best'"),
        (PruneConfig, {**RECIPE, "shape": "round"}, "x.shape: 'round'"),
        (PruneConfig, {**RECIPE, "ema_decay": 0.9}, "x.ema_decay: 0.9"),
        (UpdateConfig, {"epochs": 0, "batch_size": 8}, "x.epochs: 0"),
        (UpdateConfig, {"epochs": 2, "steps": 30, "batch_size": 8}, "x.epochs: 2 .*allowed: 0 beside steps=30"),
        (UpdateConfig, {"epochs": 0, "steps": 0, "batch_size": 8}, "x.steps: 0"),
        (SearchConfig, {**RECIPE, "steps": 30}, "x.epochs: 3 .*allowed: 0 beside steps=30"),
        (PruneConfig, {**RECIPE, "steps": 30}, "x.steps: unknown field"),
        (UpdateConfig, {"epochs": 1, "batch_size": 7, "mixup": 0.8}, "x.batch_size: 7"),
        (UpdateConfig, {"epochs": 1, "batch_size": 8, "distill_weight": 2}, "x.distill_weight: 2"),
        (UpdateConfig, {"epochs": 1, "batch_size": 8, "distill_temperature": 0}, "x.distill_temperature: 0"),
        (UpdateConfig, {"epochs": 1, "batch_size": 8, "distill_kind": "warm"}, "x.distill_kind: 'warm'"),
    ],
)
def test_wrong_values_are_refused_in_one_line(config, values, named):
    with pytest.raises(ValueError, match=named) as caught:
        config.read(values, "x")
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_may_distill_and_does_not_unless_asked(name):
    values = {"epochs": 1, "batch_size": 8, **({} if name == "update" else {"lr": 1e-3})}
    assert not RECIPES[name].read(values, name).distills
    assert RECIPES[name].read({**values, "distill_weight": 0.5}, name).distills


def test_steps_stand_in_place_of_epochs():
    by_epochs = UpdateConfig(epochs=3, batch_size=8)
    by_steps = SearchConfig(epochs=0, steps=25, batch_size=8, lr=1e-3, warmup_epochs=1)
    assert (by_epochs.num_steps(10), by_steps.num_steps(10)) == (30, 25)
    assert (by_epochs.is_empty, by_steps.is_empty) == (False, False)
    assert SearchConfig(epochs=0, batch_size=8, lr=1e-3).is_empty
    assert "steps" not in by_epochs.identity()
