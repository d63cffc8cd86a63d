from spp.plan.graph import Plan, Point
from spp.record.rows import _variants


def test_a_variant_is_what_points_differ_in_beside_the_columns():
    shared = ("debug=fast", "finetune.lr=0.1", "budget=macs")
    own = {
        "method=spp method.preset=textbook seed=0": "",
        "method=lasso method.lam=1 seed=0": "method.lam=1",
        "method=lasso method.lam=2 +method.extra=3 seed=1 budget.values=[0.5]": "method.lam=2 +method.extra=3",
    }
    plan = Plan.merge([Point(name, (*shared, *name.split()), ()) for name in own])
    assert _variants(plan) == own


def test_one_point_has_no_variant():
    assert _variants(Plan.merge([Point("p", ("method.lam=1", "seed=3"), ())])) == {"p": ""}
