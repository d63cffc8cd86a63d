import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.plan.numbers import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2.6G", 2.6e9),
        ("15.7M", 15.7e6),
        ("12k", 12e3),
        ("30%", 0.3),
        ("0.3", 0.3),
        (0.5, 0.5),
        (1, 1.0),
        ("1.5e9", 1.5e9),
    ],
)
def test_reads_what_people_write(text, size):
    assert parse_size(text, "--macs") == pytest.approx(size)


@pytest.mark.parametrize("text", ["120%", "1.2", "0", "-0.3", "nan", "inf", "", "half", "3 apples", True, "0%"])
def test_refuses_the_rest_in_one_line_that_names_field_and_value(text):
    with pytest.raises(ValueError, match=r"budget\.values") as caught:
        parse_size(text, "budget.values")
    message = str(caught.value)
    assert str(text) in message
    assert "allowed" in message
    assert "\n" not in message


@given(st.floats(0.001, 1.0) | st.floats(1e4, 1e12))
def test_what_is_written_can_be_read_back(size):
    assert parse_size(format_size(size), "x") == pytest.approx(size, rel=1e-3)
