from dataclasses import dataclass

import pytest

from spp.config import Config, later
from spp.plan.config import BudgetConfig, LoggerConfig, RuntimeConfig


@pytest.mark.parametrize(
    ("config", "values", "named"),
    [
        (BudgetConfig, {"kind": "flops", "values": [0.5]}, "x.kind: 'flops'"),
        (BudgetConfig, {"kind": "macs", "values": []}, "x.values: \\[\\]"),
        (BudgetConfig, {"kind": "macs", "values": ["120%"]}, "x.values: 120%"),
        (LoggerConfig, {"mode": "loud", "project": "spp"}, "x.mode: 'loud'"),
        (RuntimeConfig, {"accelerator": "tpu"}, "x.accelerator: 'tpu'"),
        (RuntimeConfig, {"num_workers": -1}, "x.num_workers: -1"),
    ],
)
def test_wrong_values_are_refused_in_one_line(config, values, named):
    with pytest.raises(ValueError, match=named) as caught:
        config.read(values, "x")
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_budgets_are_sizes_largest_first_each_once():
    budget = BudgetConfig(kind="macs", values=[0.2, "50%", "2.6G", 0.5])
    assert budget.values == [2.6e9, 0.5, 0.2]


@dataclass(frozen=True, kw_only=True)
class First(Config):
    """A config as it was when keys were made of it."""

    size: int
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Grown(First):
    """The same config, some fields later: by now most people want `sharp`, which there was not before."""

    sharp: bool = later(True, neutral=False)
    tags: list = later(neutral=[], default_factory=list)
    count: int = later(1, neutral=1)


def test_a_later_field_is_no_part_of_the_identity_at_its_neutral_value():
    assert Grown(size=3, sharp=False).identity() == First(size=3).identity() == {"size": 3, "rate": 0.5}
    assert Grown(size=3).identity() == {"size": 3, "rate": 0.5, "sharp": True}
    assert Grown(size=3, sharp=False, tags=["a"]).identity() == {"size": 3, "rate": 0.5, "tags": ["a"]}
    assert "count" in Grown(size=3).plain()


def test_a_value_that_only_compares_equal_to_the_neutral_one_is_another():
    @dataclass(frozen=True, kw_only=True)
    class Open(Config):
        choice: int | bool = later(1, neutral=1)

    assert Open(choice=1).identity() == {}
    assert Open(choice=True).identity() == {"choice": True}


def test_what_a_spec_does_not_hold_is_neutral_whatever_the_default_is():
    old = Grown.from_spec({"size": 3, "rate": 0.5}, "x")
    assert old == Grown(size=3, sharp=False, tags=[], count=1)
    for config in (Grown(size=3), Grown(size=3, sharp=False, tags=["a"], count=2)):
        assert Grown.from_spec(config.identity(), "x") == config
    with pytest.raises(ValueError, match="x: required fields are missing"):
        Grown.from_spec({"rate": 0.5}, "x")


def test_a_config_within_a_config_keeps_its_identity_too():
    @dataclass(frozen=True, kw_only=True)
    class Outer(Config):
        inner: Grown
        name: str = "a"

    assert Outer(inner=Grown(size=3, sharp=False)).identity() == {"inner": {"size": 3, "rate": 0.5}, "name": "a"}


def test_defaults_and_required_fields_are_told_apart():
    assert Grown.required() == ["size"]
    assert Grown.defaults() == {"rate": 0.5, "sharp": True, "tags": [], "count": 1}
