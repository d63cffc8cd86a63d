import shlex

import pytest

from spp.cli.points import compose_points
from spp.record.record import MissingMember
from spp.report.groups import Combination, Group
from spp.report.missing import CIFAR10, Training, budget_todo, missing_todo, missing_todos, recipe_todo, value_todo
from spp.report.published import load_published
from spp.report.tables.table8 import grid_command

PUBLISHED = load_published()


def test_hours_by_hand():
    """10 epochs of 1,000 images at 4.68e9 multiply-adds, forward and backward, then 20 of a member of half of it."""
    training = Training(4.68e9, 1000, 10, 20, (2.34e9,))
    assert training.gpu_hours == pytest.approx(2 * 3 * 10 * 1000 * 4.68e9 / (0.3 * 312e12 / 2) / 3600)


def test_a_todo_has_command_and_hours():
    value = next(value for value in PUBLISHED.values if value.value == 81.2)
    line = value_todo(value, "released", PUBLISHED)
    assert "spp run experiment=table6_deit_base method.preset=released paths.data=DIR" in line
    hours = 3 * 1_281_167 * (25 * 17.5827e9 + 300 * 6.9e9) / 46.8e12 / 3600
    assert f"(about {hours:.0f} GPU-hours)" in line


def test_what_cannot_be_run_has_no_command():
    assert all(value_todo(v, None, PUBLISHED) is None for v in PUBLISHED.values if v.table in ("retrieval", "llm"))


def test_every_row_of_table_6_has_a_command():
    lines = {recipe.model: recipe_todo(recipe, PUBLISHED) for recipe in PUBLISHED.recipes}
    assert all(f"spp run experiment=table6_{model} " in line for model, line in lines.items())
    assert "GPU-hours" in lines["deit_tiny"]
    assert "GPU-hours" not in lines["clip_base"]  # nothing is known of what it costs


def test_a_missing_clip_costs_what_is_not_known():
    clip = ("retrieval", "clip_large", "coco", 0, "params", 0.759)
    missing = MissingMember("spp", "priced", "", *clip, "p", "s", "failed", "spp run experiment=x", "k")
    assert "spp run experiment=x" in missing_todo([missing], [], PUBLISHED)


def test_a_budget_that_others_have_is_run_by_its_command(make_row):
    words = "spp run method=taylor model=vit_micro budget=macs:0.5 seed=1 debug=fast"
    rows = [make_row(command=words, method="taylor", preset=None, seed=seed) for seed in (0, 1)]
    line = budget_todo(Group(Combination.of(rows[0]), "macs", 0.3), rows)
    command = line[line.index("spp run") : line.rindex(" (")]
    points = compose_points(shlex.split(command)[3:], multirun=True)
    assert [point.cfg["seed"] for point in points] == [0, 1]
    assert {(p.cfg["method"]["name"], p.model, *p.cfg["budget"]["values"]) for p in points} == {
        ("taylor", "vit_micro", 0.3)
    }
    assert "about 100 s on CPU" in line  # of both seeds


def test_a_member_that_was_asked_for_costs_what_others_cost(make_row):
    missing = MissingMember(
        "spp",
        "priced",
        "",
        "classification",
        "vit",
        "digits",
        3,
        "macs",
        0.5,
        "p",
        "s",
        "failed",
        "spp run seed=3",
        "a3",
    )
    row = make_row(search_gpu_seconds=3600.0, finetune_gpu_seconds=7200.0, device="A100")
    line = missing_todo([missing], [row], PUBLISHED)
    assert "seed 3, failed: spp run seed=3" in line
    assert "about 3 GPU-hours, as measured on A100" in line
    assert "no estimate" in missing_todo([missing], [], PUBLISHED)
    other = make_row(variant="finetune.epochs=0", search_gpu_seconds=0.0, finetune_gpu_seconds=3600.0)
    assert "about 3 GPU-hours, as measured on A100)" in missing_todo([missing], [other, row], PUBLISHED)
    assert "about 1 GPU-hours, as measured on CPU, by members with other settings" in missing_todo(
        [missing], [other], PUBLISHED
    )


def test_searches_are_estimated_as_often_as_they_are_planned(make_row):
    def wanted(search_key):
        place = ("spp", "priced", "", "classification", "vit", "digits")
        return [
            MissingMember(
                *place, seed, "macs", budget, "p", "s", "failed", "spp run", search_key.format(seed=seed, budget=budget)
            )
            for seed in (3, 4)
            for budget in (0.5, 0.3)
        ]

    # 30 s of search and walk for each of two seeds, 20 s of finetuning for each of four members.
    assert "about 140 s on CPU" in missing_todo(wanted("a{seed}"), [make_row()], PUBLISHED)
    # The same whether those alike had other budgets beside them or not.
    assert "about 140 s on CPU" in missing_todo(wanted("a{seed}"), [make_row(num_members_of_search=1)], PUBLISHED)
    assert "about 200 s on CPU" in missing_todo(
        wanted("a{seed}-{budget}"), [make_row(num_members_of_search=1)], PUBLISHED
    )


def test_seeds_and_budgets_of_one_setup_are_one_line_and_one_sweep(make_record, make_row):
    def missing(seed, budget, state="not finished"):
        command = f"spp run method=taylor 'budget.values=[0.5,0.3]' seed={seed}"
        return MissingMember(
            "taylor",
            None,
            "",
            "classification",
            "vit",
            "digits",
            seed,
            "macs",
            budget,
            "p",
            "s",
            state,
            command,
            f"a{seed}",
        )

    wanted = [missing(seed, budget) for seed in (0, 1) for budget in (0.5, 0.3)]
    wanted += [missing(2, 0.3), missing(3, 0.5, "failed")]
    lines = missing_todos(make_record(make_row()), wanted, PUBLISHED)
    assert len(lines) == 3
    assert lines[0].startswith("taylor, vit on digits, macs 50 %, macs 30 %, seeds 0, 1, not finished: spp run -m ")
    command = lines[0][lines[0].index("spp run") : lines[0].rindex(" (")]
    points = compose_points(shlex.split(command)[3:], multirun=True)
    assert [(p.cfg["seed"], list(p.cfg["budget"]["values"])) for p in points] == [(0, [0.5, 0.3]), (1, [0.5, 0.3])]
    assert "seed 2, not finished: spp run method=taylor 'budget.values=[0.5,0.3]' seed=2 (" in lines[1]
    assert "seed 3, failed" in lines[2]


def test_members_of_the_papers_model_are_estimated_by_its_recipe():
    def hours(method, budgets, search_keys):
        place = (method, None, "", "classification", "deit_small", "imagenet", 0, "params")
        members = [
            MissingMember(*place, b, "p", "s", "not finished", "spp run", k)
            for b, k in zip(budgets, search_keys, strict=True)
        ]
        return missing_todo(members, [], PUBLISHED)

    def by_hand(epochs):
        return f"about {3 * 1_281_167 * 4.6083e9 * epochs / 46.8e12 / 3600:.0f} GPU-hours with the epochs of Table 6"

    assert by_hand(40 + 300 * 0.5) in hours("spp", [0.5], ["a"])
    assert by_hand(40 + 300 * (0.7 + 0.5 + 0.3)) in hours("spp", [0.7, 0.5, 0.3], ["a", "a", "a"])
    assert by_hand(3 * 40 + 300 * (0.7 + 0.5 + 0.3)) in hours("upop", [0.7, 0.5, 0.3], ["a", "b", "c"])


def test_the_cifar10_command_is_what_its_estimate_says():
    (point,) = compose_points([*CIFAR10.words.split(), "method=dessilbi"], multirun=False)
    cfg, training = point.cfg, CIFAR10.training
    assert sum(cfg[stage]["epochs"] for stage in ("dense", "search", "prune")) == training.search_epochs
    assert cfg["finetune"]["epochs"] == training.finetune_epochs
    shares = [macs / training.dense_macs for macs in training.member_macs]
    assert shares == pytest.approx(cfg["budget"]["values"], abs=0.01)


def test_the_grid_is_a_sweep_around_the_settings_of_a_member(make_row):
    command = grid_command(make_row(command="spp run method=spp model=vit_micro method.rho=2 seed=4 debug=fast"))
    points = compose_points(shlex.split(command)[3:], multirun=True)
    assert len(points) == 27
    assert len({(p.cfg["method"]["kappa"], p.cfg["method"]["lam"], p.cfg["seed"]) for p in points}) == 27
    assert {p.cfg["method"]["rho"] for p in points} == {2}


def test_a_grid_does_not_take_over_the_sweep_of_an_experiment(make_row):
    command = grid_command(make_row(command="spp run experiment=study_digits"))
    assert len(compose_points(shlex.split(command)[3:], multirun=True)) == 27
