import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage


@st.composite
def points_of_random_dags(draw):
    """Points over one pool of stages; some stages are equal although they are different objects."""
    pool = []
    for _ in range(draw(st.integers(1, 8))):
        chosen = draw(st.lists(st.sampled_from(pool), max_size=3)) if pool else []
        inputs = {f"in_{i}": stage for i, stage in enumerate(chosen)}
        pool.append(Stage(draw(st.sampled_from(["dense", "update"])), {"n": draw(st.integers(0, 2))}, inputs))
    finals = st.lists(st.sampled_from(pool), min_size=1, max_size=3)
    chosen = draw(st.lists(finals, min_size=1, max_size=4))
    return [Point(f"p{i}", (f"n={i}",), tuple(stages), {"i": i}) for i, stages in enumerate(chosen)]


def closure(stages):
    """Keys below some stages, by plain recursion."""
    keys = set()
    for stage in stages:
        keys |= {stage.key} | closure(stage.inputs.values())
    return keys


@settings(max_examples=50)
@given(points_of_random_dags())
def test_merge_has_every_stage_once_and_inputs_first(points):
    plan = Plan.merge(points)
    assert set(plan.stages) == closure(stage for point in points for stage in point.stages)
    assert all(key == stage.key for key, stage in plan.stages.items())
    for key in plan.stages:
        assert all(plan.position[parent] < plan.position[key] for parent in plan.parents(key))


@settings(max_examples=50)
@given(points_of_random_dags())
def test_merge_is_idempotent_and_deterministic(points):
    plan = Plan.merge(points)
    again = Plan.merge([*plan.points, *points])
    assert again == plan
    assert list(again.stages) == list(plan.stages)
    assert [s.label for s in again.stages.values()] == [s.label for s in plan.stages.values()]


@settings(max_examples=50)
@given(points_of_random_dags())
def test_relations_agree_with_brute_force(points):
    plan = Plan.merge(points)
    for key, stage in plan.stages.items():
        assert set(plan.parents(key)) == {parent.key for parent in stage.inputs.values()}
        assert set(plan.children(key)) == {k for k in plan.stages if key in plan.parents(k)}
        below = {k for k, other in plan.stages.items() if key in closure(other.inputs.values())}
        assert set(plan.descendants(key)) == below
        assert list(plan.descendants(key)) == sorted(below, key=plan.position.__getitem__)
        assert list(plan.points_of(key)) == [p.name for p in points if key in closure(p.stages)]


@settings(max_examples=50)
@given(points_of_random_dags())
def test_levels_are_the_longest_chains(points):
    def depth(stage):
        return 1 + max((depth(parent) for parent in stage.inputs.values()), default=-1)

    plan = Plan.merge(points)
    assert sorted(key for level in plan.levels for key in level) == sorted(plan.stages)
    for number, level in enumerate(plan.levels):
        assert level
        assert all(depth(plan.stages[key]) == number for key in level)


@settings(max_examples=50)
@given(points_of_random_dags())
def test_json_round_trip(points):
    plan = Plan.merge(points)
    written = json.dumps([plan.to_json(), plan.points_to_json()])
    rebuilt = Plan.from_json(*json.loads(written))
    assert rebuilt == plan
    assert json.dumps([rebuilt.to_json(), rebuilt.points_to_json()]) == written


def test_order_follows_the_points_depth_first():
    dense = Stage("dense", {})
    chains = [Stage("finetune", {}, {"path": Stage("update", {"lr": lr}, {"dense": dense})}) for lr in (1, 2)]
    plan = Plan.merge([Point(f"lr={i}", (), (chain,)) for i, chain in enumerate(chains)])
    assert [stage.kind for stage in plan.stages.values()] == [
        "dense",
        "update",
        "finetune",
        "update",
        "finetune",
    ]


def test_first_label_runtime_and_resources_win():
    first = Stage("dense", {"a": 1}, label="first", runtime={"workers": 1}, resources={"gpus": 1})
    second = Stage("dense", {"a": 1.0}, label="second", runtime={"workers": 2}, resources={"gpus": 2})
    plan = Plan.merge([Point("a", (), (first,)), Point("b", (), (second,))])
    assert next(iter(plan.stages.values())).to_json() == first.to_json()
    assert plan.points_of(first.key) == ("a", "b")


def test_one_name_for_two_points_is_refused():
    one, other = Stage("dense", {"a": 1}), Stage("dense", {"a": 2})
    assert len(Plan.merge([Point("p", (), (one,)), Point("p", (), (one,))]).points) == 1
    with pytest.raises(ValueError, match=r"^point: 'p' is not allowed twice"):
        Plan.merge([Point("p", (), (one,)), Point("p", (), (other,))])


def test_long_chains_are_no_problem():
    stage = Stage("step", {"n": 0})
    for n in range(1, 5000):
        stage = Stage("step", {"n": n}, {"last": stage})
    plan = Plan.merge([Point("long", (), (stage,))])
    assert [s.config["n"] for s in plan.stages.values()] == list(range(5000))
    assert len(plan.levels) == 5000
    assert len(plan.descendants(next(iter(plan.stages)))) == 4999


def test_empty_plan():
    plan = Plan.merge([])
    assert (plan.points, dict(plan.stages), plan.levels) == ((), {}, ())
