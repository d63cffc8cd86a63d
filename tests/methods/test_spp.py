import math

import pytest

from spp.methods.registry import method_names, read_method
from spp.methods.spp import SPPConfig, learning_rate


def test_the_method_is_found_by_name():
    assert "spp" in method_names()
    assert read_method({"name": "spp", "preset": "textbook"}) == SPPConfig(preset="textbook")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "sp"}, r"method\.name: 'sp' .*did you mean spp"),
        ({"name": "spp", "lam": -1}, r"method\.lam: -1 .*allowed: a positive number"),
        ({"name": "spp", "preset": "best"}, r"method\.preset: 'best' .*priced, textbook, released"),
        ({"name": "spp", "rho": -0.1}, r"method\.rho: -0\.1"),
        ({"name": "spp", "lamda": 1}, r"method\.lamda: unknown field.*did you mean method\.lam"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(values, named):
    with pytest.raises(ValueError, match=named) as caught:
        read_method(values)
    assert "\n" not in str(caught.value)


def test_what_chooses_a_member_does_not_shape_the_path():
    one, other = SPPConfig(score="V", min_units=4), SPPConfig(score="entry", min_units=1)
    assert one.search() == other.search()
    assert one.selection() != other.selection()
    assert SPPConfig.read({**one.search(), **one.selection()}, "method") == one


def test_only_the_released_preset_lowers_its_step_size():
    released = SPPConfig(preset="released")
    rates = [learning_rate(released, 1e-3, epoch, 300) for epoch in range(300)]
    expected = [1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * e / 300)) for e in range(300)]
    assert rates == pytest.approx(expected)
    assert learning_rate(SPPConfig(), 0.03, 7, 10) == 0.03
