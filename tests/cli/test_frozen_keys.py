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

KEYS: dict[str, list[str]] = {
    "spp": [
        "dense/5c7073b4901b8bb99809",
        "update/6cc23604692007531cc3",
        "prune/794729b1d161011ca5b0",
        "finetune/a7a74bb93de675c047f7",
        "measure/d653578896d78a3d0108",
        "measure/aaa19cf8e0efe784b552",
    ],
    "spp one-shot": [
        "dense/5c7073b4901b8bb99809",
        "update/4ae5f718d67f60984589",
        "prune/73aefca3306794b94329",
        "measure/d653578896d78a3d0108",
        "measure/7e407de7ea63f2611d6a",
    ],
    "taylor": [
        "dense/32fa20266fa69c812c0f",
        "search/5b4cf5ac739c01cf8341",
        "prune/54e916d59b2650484cb5",
        "finetune/8aff42914e0d438a55cf",
        "measure/3af462c4e2ffd6bd3a04",
        "measure/521f78cbf3505c275368",
    ],
    "vit_slim": [
        "dense/5c7073b4901b8bb99809",
        "search/16e89c4485d1dac16642",
        "prune/b03c9112d008e8796c3c",
        "finetune/2fa74d1499b24b652114",
        "measure/d653578896d78a3d0108",
        "measure/6c24fed8c7f1d6fd8c43",
    ],
    "lasso": [
        "dense/5c7073b4901b8bb99809",
        "search/76ad9dfd0db4699fe32d",
        "prune/c4cc7e3fca67a6bc40bb",
        "finetune/3fd755d4834ea29f8c5d",
        "measure/d653578896d78a3d0108",
        "measure/6640b068209c5c83d637",
    ],
    "upop": [
        "dense/5c7073b4901b8bb99809",
        "search/2240dede18691be774e5",
        "finetune/4d945889080e93bad91c",
        "measure/d653578896d78a3d0108",
        "measure/80da6e71100ccd8799f7",
    ],
    "cifar recipe": [
        "dense/304226720f5c6c5b7429",
        "search/3eb940d52dc3f296d1d4",
        "prune/53f1b708e881a23666ce",
        "finetune/87486e5893d2aff7f645",
        "measure/99a878059055a5426f01",
        "measure/d3cd2dc7ed82bfbbb736",
    ],
}


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
