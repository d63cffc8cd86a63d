import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.plan.walk import time_share_at, walked_fraction

SHAPES = ("sine", "cubic", "linear", "cosine")


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_go_from_nothing_to_all(shape):
    assert walked_fraction(shape, 0) == pytest.approx(0)
    assert walked_fraction(shape, 1) == pytest.approx(1)
    assert walked_fraction(shape, 2) == pytest.approx(1)


def test_sine_is_upops_schedule():
    # Square root of half of 1 - cos(pi t): deit/engine.py of UPop.
    for t in (0.1, 0.4, 0.8):
        assert walked_fraction("sine", t) == pytest.approx(math.sqrt((1 - math.cos(math.pi * t)) / 2))


@given(st.sampled_from(SHAPES), st.floats(0, 1))
def test_the_way_that_is_done_after_a_time_takes_that_time(shape, fraction):
    assert walked_fraction(shape, time_share_at(shape, fraction)) == pytest.approx(fraction, abs=1e-9)
