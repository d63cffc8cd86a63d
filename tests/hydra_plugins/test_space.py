import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.spp_optuna_sweeper._space import read_space, to_words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=int(interval(1,5))", IntDistribution(1, 5)),
        ("a=tag(log,int(interval(1,5)))", IntDistribution(1, 5, log=True)),
        ("a=range(1,5)", IntDistribution(1, 4)),
        ("a=range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("a=range(5,0,-2)", CategoricalDistribution(("5", "3", "1"))),
        ("a=range(0.5,2,step=0.5)", CategoricalDistribution(("0.5", "1.0", "1.5"))),
        ("a=1,2,x y", CategoricalDistribution(("1", "2", "x\\ y"))),
        ("a=choice([0.5],[0.3,0.2])", CategoricalDistribution(("[0.5]", "[0.3,0.2]"))),
        ("++a.b=choice(true,false)", CategoricalDistribution(("True", "False"))),
    ],
)
def test_what_hydra_writes_is_what_optuna_draws_from(word, expected):
    fixed, space = read_space([word, "seed=3", "~method.lam"], None)
    assert fixed == ["seed=3", "~method.lam"]
    assert space == {word.partition("=")[0]: expected}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["seed=1"], ["hydra/sweeper", "nothing to choose"]),
        (["finetune.lr=interval(2,1)"], ["finetune.lr", "interval(2,1)", "allowed"]),
        (["finetune.lr=tag(log,interval(0,1))"], ["finetune.lr", "interval(0,1)"]),
    ],
)
def test_a_space_without_points_is_refused(words, named):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        read_space(words, None)
    assert [word for word in named if word not in str(caught.value)] == []


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_a_point_reads_back_as_the_numbers_that_were_drawn(real, integer):
    _, space = read_space(["a=interval(0,1)", "b=int(interval(1,5))", "c=x,y z"], None)
    words = to_words(space, {"a": real, "b": integer, "c": "y\\ z"})
    assert [o.value() for o in OverridesParser.create().parse_overrides(words)] == [real, integer, "y z"]
