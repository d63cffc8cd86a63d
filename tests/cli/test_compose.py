import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from spp.cli.compose import compose_points, expand_shorthand
from spp.locations import CONF


def test_composes_what_hydra_composes():
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        expected = OmegaConf.to_container(compose("config", ["data=cifar10", "seed=3"]), resolve=True)
    ((overrides, cfg),) = compose_points(["data=cifar10", "seed=3"], multirun=False)
    assert cfg == expected
    assert overrides == ("data=cifar10", "seed=3")


def test_a_sweep_is_the_grid_in_hydras_order():
    points = compose_points(["seed=0,1", "method.preset=priced,textbook"], multirun=True)
    assert [overrides for overrides, _ in points] == [
        (f"seed={seed}", f"method.preset={preset}") for seed in (0, 1) for preset in ("priced", "textbook")
    ]
    assert [cfg["seed"] for _, cfg in points] == [0, 0, 1, 1]


def test_lists_are_not_swept_over():
    ((_, cfg),) = compose_points(["budget.values=[0.5,0.3]"], multirun=True)
    assert cfg["budget"]["values"] == [0.5, 0.3]


def test_the_short_form_of_a_budget():
    assert expand_shorthand(["budget=macs:[0.5,0.3]", "seed=1"]) == ["budget=macs", "budget.values=[0.5,0.3]", "seed=1"]
    ((_, cfg),) = compose_points(["budget=params:[15.7M]"], multirun=False)
    assert cfg["budget"] == {"kind": "params", "values": ["15.7M"]}


@pytest.mark.parametrize("group", sorted(path.name for path in CONF.iterdir() if path.is_dir()))
def test_every_choice_of_every_group_composes(group):
    for file in sorted((CONF / group).glob("*.yaml")):
        ((_, cfg),) = compose_points([f"{group}={file.stem}"], multirun=False)
        assert cfg["seed"] == 0
