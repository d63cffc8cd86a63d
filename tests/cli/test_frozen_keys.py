"""Keys of known configurations, so that stores outlive releases: a stage that was done stays done.

A new field of a config is declared with `spp.config.later`, and no number here changes. What does change the results of
a kind of stages raises its version in `spp.plan.setup.STAGE_VERSIONS`; then, and only then, are its keys and those of
what follows written anew, from what the failing test prints.
"""

import pytest

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep

WORDS = {
    "spp": "budget=macs:[0.5]",
    "spp one-shot": "budget=params:[150k] finetune.epochs=0 prune.epochs=0 method.preset=textbook",
    "taylor": "method=taylor budget=macs:[0.5] seed=3",
    "vit_slim": "method=vit_slim method.tokens=0.7 budget=units:[0.4]",
    "lasso": "method=lasso budget=macs:[0.3]",
    "upop": "method=upop budget=macs:[0.3] rest_of_walk=true",
    "cifar recipe": "recipe=cifar10 method=magnitude budget=macs:[0.5] finetune.distill_weight=0.5",
}

# ---- The keys: fill in what the test prints, when all rooms are merged. --------------
KEYS: dict[str, list[str]] = {}
# --------------------------------------------------------------------------------------


def keys_of(words: str) -> list[str]:
    """The stages of a point, inputs first, as kind/key."""
    plan = plan_sweep(compose_points(words.split(), multirun=False)).plan
    return [f"{stage.kind}/{key}" for key, stage in plan.stages.items()]


def test_known_configurations_keep_their_keys():
    found = {name: keys_of(words) for name, words in WORDS.items()}
    if found != KEYS:
        lines = [
            f"    {name!r}: [\n" + "".join(f"        {key!r},\n" for key in keys) + "    ],\n"
            for name, keys in found.items()
        ]
        pytest.fail("the keys are now:\nKEYS: dict[str, list[str]] = {\n" + "".join(lines) + "}", pytrace=False)


def test_no_two_of_them_are_the_same_work():
    finals = [keys_of(words)[-1] for words in WORDS.values()]
    assert len(set(finals)) == len(finals)
