"""Members that the user's words do not tell apart."""

import pytest

from spp.plan.graph import Point
from spp.plan.spec import Stage
from spp.record.variants import PlannedMember, variants_of_members


def member(seed=0, budget=0.5, values=(0.5,), lr=0.1, dense_epochs=3, version=1, task="classification"):
    dense = Stage("dense", {"seed": seed, "recipe": {"epochs": dense_epochs}}, version=version)
    family = Stage("prune", {"seed": seed, "budget": {"kind": "macs", "values": list(values)}}, {"dense": dense})
    size = {"kind": "macs", "value": budget}
    finetune = Stage("finetune", {"seed": seed, "budget": size, "recipe": {"lr": lr}}, {"family": family})
    shared = {"task": {"name": task}, "recipe": {"batch_size": 64}}
    reference = Stage("measure", shared, {"member": dense})
    return Stage("measure", {**shared, "budget": size}, {"member": finetune, "reference": reference})


META = {"method": "spp", "preset": "priced", "model": "vit", "data": "digits"}


def variants_of(*stages, words=""):
    """Of stages of a point each, or of one point where several come as a list; of all points with the same words."""
    points = [(Point("p", (), (), META), stage) for stage in stages]
    members = [(point, one) for point, stage in points for one in (stage if isinstance(stage, list) else [stage])]
    named = variants_of_members(PlannedMember(point, words, stage) for point, stage in members)
    return [named[stage.key] for _, stage in members]


def variants_of_words(members):
    """Of stages of a point each, with the words of each."""
    named = variants_of_members(PlannedMember(Point("p", (), (), META), words, stage) for stage, words in members)
    return [named[stage.key] for stage, _ in members]


def test_seeds_and_budgets_do_not_tell_members_apart():
    assert variants_of(member(), member(seed=1), member(budget=0.3), member(seed=2, values=(0.3,))) == [""] * 4


@pytest.mark.parametrize(
    ("changed", "variants"),
    [
        ({"lr": 0.2}, ["finetune.lr=0.1", "finetune.lr=0.2"]),
        ({"dense_epochs": 9}, ["dense.epochs=3", "dense.epochs=9"]),
        ({"version": 2}, ["dense.version=1", "dense.version=2"]),
    ],
)
def test_settings_that_no_word_tells_of_do(changed, variants):
    assert variants_of(member(), member(seed=1, **changed)) == variants
    assert variants_of(member(), member(seed=1, **changed), words="a=1") == [f"a=1 {text}" for text in variants]


def test_what_follows_from_the_budget_within_a_point_does_not_tell_its_members_apart():
    family = [member(budget=0.5, lr=0.1), member(budget=0.3, lr=0.2)]
    assert variants_of(family, [member(1, 0.5, lr=0.1), member(1, 0.3, lr=0.2)]) == [""] * 4
    other = [member(1, 0.5, lr=0.2), member(1, 0.3, lr=0.2)]
    assert variants_of(family, other) == ["finetune.lr=0.1/0.2"] * 2 + ["finetune.lr=0.2"] * 2


def test_a_seed_that_has_a_budget_twice_is_told_apart_by_the_budgets_walked():
    twice = variants_of(member(values=(0.5, 0.3)), member(values=(0.5,)))
    assert twice == ["budget.values=[0.5,0.3]", "budget.values=[0.5]"]


def test_many_settings_are_counted_and_still_differ():
    changes = [{"lr": lr, "dense_epochs": epochs, "version": v} for lr, epochs, v in ((1, 1, 1), (2, 2, 2), (2, 2, 3))]
    stages = [member(seed, **change) for seed, change in enumerate(changes)]
    assert len(set(variants_of(*stages))) == 3


def test_a_word_that_says_the_default_does_not_tell_members_apart():
    plain, said = (member(seed=0, lr=0.1), ""), (member(seed=1, lr=0.1), "finetune.lr=0.1")
    other = (member(seed=1, lr=0.2), "finetune.lr=0.2")
    assert variants_of_words([said, plain, other]) == ["", "", "finetune.lr=0.2"]
    assert variants_of_words([said, other]) == ["finetune.lr=0.1", "finetune.lr=0.2"]


def test_words_that_say_the_same_leave_a_seed_that_has_a_budget_twice_told_apart():
    plain, said = (member(values=(0.5, 0.3)), ""), (member(values=(0.5,)), "finetune.lr=0.1")
    assert variants_of_words([plain, said]) == ["budget.values=[0.5,0.3]", "budget.values=[0.5]"]


def test_members_of_two_tasks_need_no_variant():
    assert variants_of(member(), member(task="regression", lr=0.2)) == ["", ""]
