"""Which chain of stages a method runs in, and what of it the user's words change."""

import pytest

from spp.cli.pipelines import find_pipeline, prunes_weights, weight_pipeline
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.locations import PIPELINES
from spp.methods.registry import config_class, method_names


def final_stages(*words):
    """The final stages of a point, and its meta."""
    (point,) = plan_sweep(compose_points(["debug=fast", *words], multirun=False)).plan.points
    return point.stages, point.meta


@pytest.mark.parametrize("method", method_names())
def test_every_method_has_a_pipeline_that_makes_a_chain(method):
    sizes = "budget.values=[19968,19200]" if method == "dsp" else "budget.values=[0.5,0.3]"
    finals, meta = final_stages(f"method={method}", sizes)
    assert [stage.kind for stage in finals] == ["measure", "measure"]
    assert meta["pipeline"] == find_pipeline(None, config_class(method)()).name
    first = {"path": "update", "ranking": "prune", "budget ranking": "prune", "budget": "search"}
    repaired = finals[0].inputs["member"].inputs["family"]
    assert repaired.kind == "repair"
    family = repaired.inputs["family"]
    assert (family.inputs.get("path") or family).kind == ("update" if meta["pipeline"] == "solution_path" else "search")
    assert family.kind == {"update": "prune"}.get(kind := first[config_class(method).kinds[0]], kind)


def test_a_file_is_called_by_its_name_by_a_method_of_it_or_by_a_nickname():
    lasso = config_class("lasso")()
    names = {"one_search": "one_search", "lasso_path": "one_search", "taylor": "one_search"}
    names |= {"lasso": "one_lambda_per_budget", "one_lambda_per_budget": "one_lambda_per_budget"}
    assert {name: find_pipeline(name, lasso).name for name in names} == names
    assert find_pipeline(None, lasso).name == "one_lambda_per_budget"


def test_the_same_pipeline_under_another_name_is_the_same_work():
    default, _ = final_stages()
    for name in ("spp", "solution_path"):
        assert final_stages(f"pipeline={name}")[0] == default
    assert final_stages("method=lasso", "pipeline=lasso_path")[0] != final_stages("method=lasso")[0]


def test_every_file_says_what_it_is_for():
    files = [file for file in sorted(PIPELINES.glob("*.py")) if file.stem != weight_pipeline().name]
    names = {
        find_pipeline(file.stem, config_class(method)()).name
        for file, method in zip(files, ("lasso", "taylor", "upop", "spp"), strict=True)
    }
    assert names == {"one_lambda_per_budget", "one_search", "one_search_per_budget", "solution_path"}


@pytest.mark.parametrize("method", ["spp", "taylor", "upop", "lasso"])
def test_without_finetuning_the_member_is_measured_as_it_was_cut(method):
    trained, _ = final_stages(f"method={method}")
    cut, _ = final_stages(f"method={method}", "finetune.epochs=0")
    for final, other in zip(trained, cut, strict=True):
        assert final.inputs["member"].kind == "finetune"
        assert other.inputs["member"] == final.inputs["member"].inputs["family"]
        assert other.inputs["reference"] == final.inputs["reference"]


def test_a_recipe_of_another_pipeline_changes_nothing_and_is_not_looked_at():
    default, _ = final_stages()
    assert final_stages("search.lr=0.5")[0] == default
    assert final_stages("search.lr=-1")[0] == default
    assert final_stages("prune.lr=0.5")[0] != default


def test_distillation_is_an_option_of_every_recipe():
    finals, _ = final_stages("finetune.distill_weight=0.5", "prune.distill_weight=0.5")
    member = finals[0].inputs["member"]
    assert member.inputs["dense"].kind == "dense"
    assert member.inputs["family"].inputs["family"].config["recipe"]["distill_weight"] == 0.5
    assert "dense" not in final_stages()[0][0].inputs["member"].inputs


def test_single_weights_are_pruned_where_the_pipeline_or_a_method_that_units_do_not_have_says_so():
    assert weight_pipeline().name == "one_shot"
    assert prunes_weights(None, "wanda")
    assert prunes_weights("one_shot", "magnitude")
    assert prunes_weights("ria", "ria")
    assert not prunes_weights(None, "magnitude")
    assert not prunes_weights("one_search", "magnitude")
