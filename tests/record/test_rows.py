from spp.plan.graph import Point
from spp.record.rows import command
from spp.record.variants import variants_of_points


def points_of(words):
    return {name: Point(name, tuple(name.split()), ()) for name in words}


def test_a_variant_is_what_points_differ_in_beside_the_columns():
    shared = ("debug=fast", "finetune.lr=0.1", "budget=macs")
    own = {
        "method=spp method.preset=textbook seed=0": "",
        "method=lasso method.lam=1 seed=0": "method.lam=1",
        "method=lasso method.lam=2 +method.extra=3 seed=1 budget.values=[0.5]": "+method.extra=3 method.lam=2",
    }
    assert variants_of_points({name: Point(name, (*shared, *name.split()), ()) for name in own}) == own


def test_where_something_runs_is_no_variant():
    names = ("method=spp cluster=local logger=off paths.data=here", "method=spp cluster=slurm cluster.wait=true")
    assert set(variants_of_points(points_of(names)).values()) == {""}


def test_a_pipeline_is_a_variant_where_it_is_not_the_methods_own():
    points = {
        words: Point(words, tuple(words.split()), (), {"method": method})
        for words, method in {
            "pipeline=spp seed=0": "spp",
            "method=lasso pipeline=lasso": "lasso",
            "method=lasso pipeline=lasso_path": "lasso",
        }.items()
    }
    assert list(variants_of_points(points).values()) == ["", "", "pipeline=lasso_path"]


def test_one_point_has_no_variant():
    assert variants_of_points(points_of(["method.lam=1 seed=3"])) == {"method.lam=1 seed=3": ""}


def test_the_command_runs_the_point_again_wherever_that_is():
    words = ("method=spp", "budget.values=[0.5,0.3]", "cluster=slurm_a100", "paths.store=here", "paths.data=/data")
    assert command(Point("p", words, ())) == "spp run method=spp 'budget.values=[0.5,0.3]' paths.data=/data"
