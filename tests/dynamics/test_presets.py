"""Hyper-parameters, thresholds and the interpolation of entry times."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spp.dynamics.presets import PRESETS, entry_time, hyper_parameters, shrink, step_bound

FINE = 2000


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=6),
    st.floats(0.1, 2),
    st.booleans(),
)
def test_entry_time_is_the_first_crossing_of_the_straight_line(path, lam, two_sided):
    values = [0.0, *path]
    entry = torch.tensor([math.inf], dtype=torch.float64)
    for step in range(1, len(values)):
        before, after = (torch.tensor([v], dtype=torch.float64) for v in values[step - 1 : step + 1])
        entry = entry_time(entry, step, before, after, lam, two_sided)
    expected = math.inf
    for k in range(FINE * (len(values) - 1) + 1):
        left, share = divmod(k, FINE)
        right = values[min(left + 1, len(values) - 1)]
        value = values[left] + share / FINE * (right - values[left])
        if (abs(value) if two_sided else value) > lam:
            expected = k / FINE
            break
    if any(abs(abs(v) - lam) < 1e-6 for v in values):
        return  # rounding decides whether the line touches or crosses
    assert float(entry) == pytest.approx(expected, abs=1.001 / FINE)


@given(st.floats(-5, 5), st.floats(0.1, 3), st.floats(0.1, 3))
def test_shrink_is_the_soft_threshold(value, lam, kappa):
    tensor = torch.tensor([value], dtype=torch.float64)
    two_sided = kappa * math.copysign(max(abs(value) - lam, 0), value)
    assert float(shrink(tensor, lam, kappa, True)) == pytest.approx(two_sided, abs=1e-12)
    assert float(shrink(tensor, lam, kappa, False)) == pytest.approx(kappa * max(value - lam, 0), abs=1e-12)


def test_defaults_follow_the_number_of_steps():
    priced = hyper_parameters("priced", 500, {})
    expected = {"lr": 0.03, "kappa": 1, "lam": 0.4, "rho": 3, "momentum": 0.9, "eta": 0.004}
    assert priced == pytest.approx(expected)
    assert hyper_parameters("priced", 100, {"eta": 0.1})["lam"] == pytest.approx(2.0)
    assert [hyper_parameters("priced", steps, {})["lr"] for steps in (100, 50, 20)] == pytest.approx([0.03, 0.06, 0.1])
    assert hyper_parameters("priced", 20, {"rho": 6.0})["lr"] == pytest.approx(0.05)
    assert hyper_parameters("priced", 20, {"rho": 0.0})["lr"] == pytest.approx(0.15)
    assert hyper_parameters("textbook", 500, {})["lr"] == pytest.approx(0.02)
    assert hyper_parameters("textbook", 500, {"kappa": 2.0, "rho": 5.0})["lr"] == pytest.approx(0.002)
    assert hyper_parameters("released", 12_000, {}) == {"lr": 1e-3, "kappa": 1, "lam": 3, "rho": 1}


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 100_000))
def test_defaults_are_allowed_for_any_number_of_steps(preset, num_steps):
    values = hyper_parameters(preset, num_steps, {})
    assert hyper_parameters(preset, num_steps, values) == values


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("nosuch", {}, "preset: 'nosuch' is not known; allowed: priced, textbook, released; use priced"),
        ("priced", {"lam": -1}, "lam: -1 is not allowed: must be > 0; use 0.4 for preset=priced"),
        ("priced", {"lam": 0}, "lam: 0 is not"),
        ("priced", {"lr": 0}, "lr: 0 is not allowed: must be > 0; use 0.03"),
        ("priced", {"lr": math.nan}, "lr: nan is not"),
        ("priced", {"kappa": math.inf}, "kappa: inf is not"),
        ("priced", {"rho": -0.1}, "rho: -0.1 is not allowed: must be >= 0; use 3"),
        ("priced", {"momentum": 1}, r"momentum: 1 is not allowed: must be in \[0, 1\); use 0.9"),
        ("priced", {"eta": 0}, "eta: 0 is not allowed: must be > 0; use 0.01"),
        ("priced", {"eta": 3}, "eta: 3 is too large: must be <= 2"),
        (
            "priced",
            {"lr": 0.4},
            r"lr: 0.4 is too large for the coupling: must be < 0.333333 \(lr\*2\*rho < 2\)",
        ),
        ("textbook", {"rho": 0}, "rho: 0 is not allowed: must be > 0"),
        ("textbook", {"momentum": 0.9}, "momentum: 0.9 is not allowed: preset=textbook has no momentum"),
        ("textbook", {"eta": 0.1}, "eta: 0.1 is not allowed: preset=textbook has no eta"),
        (
            "textbook",
            {"lr": 0.05, "kappa": 10, "rho": 2},
            r"lr: 0.05 is too large for the coupling: must be < 0.05 \(kappa\*lr\*2\*rho < 2\); use 0.005",
        ),
        ("released", {"kappa": 2}, "kappa: 2 is not allowed: must be 1, the released code's; use 1"),
        ("released", {"lr": 1}, "lr: 1 is too large"),
    ],
)
def test_mistakes_are_named_in_one_line(preset, given, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        hyper_parameters(preset, 200, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_steps", [0, -1, 2.5])
def test_num_steps_is_checked(num_steps):
    with pytest.raises(ValueError, match=r"^num_steps: .* use 200$"):
        hyper_parameters("priced", num_steps, {})


@given(st.floats(0.01, 0.99), st.floats(0.01, 50), st.floats(0, 0.95))
def test_the_bound_of_a_quadratic_is_where_its_iteration_turns_unstable(share, curvature, momentum):
    """At rho = 0 the bound is exact: the companion matrix has spectral radius 1 there."""

    def radius(preset, factor):
        group = {"kappa": 1.0, "momentum": momentum}
        _, _, limit = step_bound(preset, group | {"lr": 1.0})
        lr, b = factor * limit / curvature, momentum if preset == "priced" else 0.0
        # State (M, average): average <- b*average + (1-b)*curvature*M ; M <- M - lr*average.
        rows = [[1 - lr * (1 - b) * curvature, -lr * b], [(1 - b) * curvature, b]]
        return torch.linalg.eigvals(torch.tensor(rows, dtype=torch.float64)).abs().max()

    for preset in ("textbook", "priced"):
        assert radius(preset, 1 - 0.5 * share) < 1 + 1e-9
        assert radius(preset, 1 + 0.5 * share) > 1
