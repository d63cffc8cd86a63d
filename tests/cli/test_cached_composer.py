"""What is composed once and changed for each point is what Hydra composes for each point."""

import pytest
from hydra import compose
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spp.cli.cached_composer import Composer
from spp.cli.config_loader import CONFIG_NAME, hydra_application
from spp.cli.points import compose_each
from spp.cli.words import expand, one_line

WORDS = [
    # groups: chosen, deleted, added, what follows from them
    "data=cifar10", "data=imagenet", "recipe=digits", "recipe=cifar10", "model=deit_small", "method=spp",
    "budget=params", "recipe=own", "data=own",
    "cluster=local", "experiment=table6_deit_small", "experiment=table6_swin_tiny", "debug=fast", "paths=default",
    "~debug", "~experiment", "~logger", "+data=cifar10", "model@extra=deit_tiny", "+model@extra=deit_tiny",
    # values, also of groups that others choose
    "seed=1", "seed=2", "finetune.lr=0.1", "finetune.epochs=3", "dense.augment.crop=pad4", "model.kwargs.drop_rate=0.1",
    "model.kwargs={depth: 2}", "budget.values=[0.5,0.3]", "budget=units:[0.4]", "method.lam=null", "update={epochs: 7}",
    "++update.epochs=9", "+foo=1", "++foo.bar={a: [1, 2]}", "~finetune.augment", "~method.lam", "~seed", "~seed=0",
    "~seed=7", "~budget.values", "cluster.resources.update.gpus_per_node=2", "model.name=x", "prune=null",
    "model={name: y, depth: 3}", "+model={extra: 1}", "data={img_size: 16}",
    # interpolations
    "paths.data=/d", "paths.store=${paths.data}/store", "finetune.lr=${dense.lr}", "prune.epochs=${update.epochs}",
    "data.root=${paths.store}/${data.name}", "seed=${oc.env:HOME}", "model.kwargs.depth=${seed}", "update=${prune}",
    # mistakes
    "model=vit_macro", "finetune.epoch=3", "+seed=3", "foo=1", "~foo", "model=3", "recipe=null", "seed=???",
    "seed=${foo}", "seed=${oc.env:NO_SUCH_VARIABLE}", "method.lam.deep=1", "~model", "++model=vit_micro", "dense=3",
    "update.x.y=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def composer():
    with hydra_application() as hydra:
        yield Composer(hydra.config_loader, CONFIG_NAME)


def composed_by_hydra(overrides, composer):
    """Configuration and model as Hydra's own `compose` has them, or the line of its error."""
    try:
        cfg = compose("config", list(overrides), return_hydra_config=True)
        model = cfg.hydra.runtime.choices["model"]
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        return OmegaConf.to_container(cfg, resolve=True), model
    except (HydraException, OmegaConfBaseException) as error:
        return one_line(error, overrides, composer)
    except ValueError as error:
        return str(error)


def composed_here(overrides, composer):
    try:
        (point,) = compose_each(composer, [overrides])
    except ValueError as error:
        return str(error)
    assert point.overrides == tuple(overrides)
    return point.cfg, point.model


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_any_words_give_what_hydra_gives(composer, words):
    overrides = expand(words)
    assert composed_here(overrides, composer) == composed_by_hydra(overrides, composer)


@pytest.mark.parametrize("word", WORDS)
def test_each_word_gives_what_hydra_gives(composer, word):
    overrides = expand([word])
    expected = composed_by_hydra(overrides, composer)
    assert composed_here(overrides, composer) == expected
    # Once more, from what is remembered by now.
    assert composed_here(overrides, composer) == expected


def test_points_share_nothing_that_can_be_changed(composer):
    first, second = compose_each(composer, [["seed=1"], ["seed=2"]])
    first.cfg["dense"]["augment"]["crop"] = "pad4"
    first.cfg["budget"]["values"].append(1)
    (third,) = compose_each(composer, [["seed=2"]])
    assert second.cfg == third.cfg


def test_groups_are_composed_once_for_all_values(composer, monkeypatch):
    loads = []
    load = composer._loader.load_configuration
    monkeypatch.setattr(composer._loader, "load_configuration", lambda *a, **k: loads.append(a[1]) or load(*a, **k))
    points = [[f"model={model}", f"seed={seed}"] for model in ("deit_tiny", "deit_base") for seed in range(5)]
    compose_each(composer, points)
    assert loads == [["model=deit_tiny"], ["model=deit_base"]]
