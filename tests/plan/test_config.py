import pytest

from spp.plan.config import BudgetConfig, DataConfig, ModelConfig, PruneConfig, RecipeConfig, SearchConfig, UpdateConfig

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
        (RecipeConfig, {**RECIPE, "select": "worst"}, "x.select: 'worst'"),
        (RecipeConfig, {"epochs": 3}, "x: required fields are missing"),
        (PruneConfig, {**RECIPE, "shape": "round"}, "x.shape: 'round'"),
        (UpdateConfig, {"epochs": 0, "batch_size": 8}, "x.epochs: 0"),
        (DataConfig, {"name": "digits", "img_size": 8, "val_fraction": 1.0}, "x.val_fraction: 1.0"),
        (BudgetConfig, {"kind": "flops", "values": [0.5]}, "x.kind: 'flops'"),
        (BudgetConfig, {"kind": "macs", "values": []}, "x.values: \\[\\]"),
        (BudgetConfig, {"kind": "macs", "values": ["120%"]}, "x.values: 120%"),
        (ModelConfig, {"name": 3}, "x.name: 3"),
    ],
)
def test_wrong_values_are_refused_in_one_line(config, values, named):
    with pytest.raises(ValueError, match=named) as caught:
        config.read(values, "x")
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_budgets_are_sizes_largest_first_each_once():
    budget = BudgetConfig(kind="macs", values=[0.2, "50%", "2.6G", 0.5])
    assert budget.values == [2.6e9, 0.5, 0.2]


def test_the_yaml_lists_every_field_of_the_recipes_with_its_default():
    """So that any of them can be set on the command line without Hydra's plus."""
    from dataclasses import MISSING, fields

    import yaml

    from spp.locations import CONF

    listed = yaml.safe_load((CONF / "recipes.yaml").read_text())
    configs = {
        "dense": RecipeConfig,
        "update": UpdateConfig,
        "search": SearchConfig,
        "prune": PruneConfig,
        "finetune": RecipeConfig,
    }
    assert listed.keys() == configs.keys()
    for name, config in configs.items():
        expected = {
            f.name: f.default
            if f.default is not MISSING
            else f.default_factory()
            if f.default_factory is not MISSING
            else "???"
            for f in fields(config)
        }
        assert {key: float(value) if key == "min_lr" else value for key, value in listed[name].items()} == expected
