"""Keys of known configurations, so that stores outlive releases: a stage that was done stays done.

A new field of a config is declared with `spp.config.later`, and no number here changes. What does change the results of
a kind of stages raises its version in `spp.plan.setup.STAGE_VERSIONS`; then, and only then, are its keys and those of
what follows written anew, from what the failing test prints.
"""

import pytest

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep

WORDS = {
    "spp": "repair=none budget=macs:[0.5]",
    "spp one-shot": "repair=none budget=params:[150k] finetune.epochs=0 prune.epochs=0 method.preset=textbook",
    "taylor": "method=taylor repair=none budget=macs:[0.5] seed=3",
    "vit_slim": "method=vit_slim method.tokens=0.7 repair=none budget=units:[0.4]",
    "lasso": "method=lasso repair=none budget=macs:[0.3]",
    "upop": "method=upop repair=none budget=macs:[0.3] rest_of_walk=true",
    "cifar recipe": "recipe=cifar10 method=magnitude repair=none budget=macs:[0.5] finetune.distill_weight=0.5",
    "repaired": "method=taylor budget=macs:[0.5] prune.epochs=0",
}

KEYS: dict[str, list[str]] = {
    "spp": [
        "dense/5c7073b4901b8bb99809",
        "update/6cc23604692007531cc3",
        "prune/794729b1d161011ca5b0",
        "finetune/a7a74bb93de675c047f7",
        "measure/71760b79facc41df799b",
        "measure/e81b78a0f9eab6cc9e62",
    ],
    "spp one-shot": [
        "dense/5c7073b4901b8bb99809",
        "update/7c6019e1e1f21dc1f22c",
        "prune/5a49fae2490abf098c9e",
        "measure/71760b79facc41df799b",
        "measure/3f29b25f404325a032ac",
    ],
    "taylor": [
        "dense/32fa20266fa69c812c0f",
        "search/5b4cf5ac739c01cf8341",
        "prune/54e916d59b2650484cb5",
        "finetune/8aff42914e0d438a55cf",
        "measure/b6a612672b69a3283212",
        "measure/3867ded19c924daa23d6",
    ],
    "vit_slim": [
        "dense/5c7073b4901b8bb99809",
        "search/16e89c4485d1dac16642",
        "prune/b03c9112d008e8796c3c",
        "finetune/2fa74d1499b24b652114",
        "measure/71760b79facc41df799b",
        "measure/234704b688857efdeed0",
    ],
    "lasso": [
        "dense/5c7073b4901b8bb99809",
        "search/76ad9dfd0db4699fe32d",
        "prune/c4cc7e3fca67a6bc40bb",
        "finetune/3fd755d4834ea29f8c5d",
        "measure/71760b79facc41df799b",
        "measure/c2d2625ec7c651fed100",
    ],
    "upop": [
        "dense/5c7073b4901b8bb99809",
        "search/2240dede18691be774e5",
        "finetune/4d945889080e93bad91c",
        "measure/71760b79facc41df799b",
        "measure/9cf6252f5c4364ac64c3",
    ],
    "cifar recipe": [
        "dense/304226720f5c6c5b7429",
        "search/3eb940d52dc3f296d1d4",
        "prune/53f1b708e881a23666ce",
        "finetune/87486e5893d2aff7f645",
        "measure/c1480a93fff55e95f32c",
        "measure/ea4f272d6b4c9f8dbcef",
    ],
    "repaired": [
        "dense/5c7073b4901b8bb99809",
        "search/c6c1a6eb9e1bfd7bc6b5",
        "prune/fcdb0e7c16d26865e4c2",
        "repair/2b249e76467a4c5c2c59",
        "finetune/f343f53ed0634c8a6fb3",
        "measure/71760b79facc41df799b",
        "measure/ae4303844824b8d7e1ab",
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
