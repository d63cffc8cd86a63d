"""What members would reach, held against arithmetic by hand."""

import itertools
import math
from statistics import stdev

import pytest

from spp.record.prediction import treatment


def row(share, value, seed=0, *, finetuned=0, dense=90.0, count=400, unit="%"):
    metric = {"label": "top-1", "unit": unit, "better": "higher", "of": "images", "count": count}
    return {
        "method": "spp", "preset": "priced", "variant": "", "model": "m", "data": "d", "task": "t", "seed": seed,
        "budget_kind": "macs", "budget_asked": share, "macs": 1000 * share, "dense_macs": 1000, "dense_key": f"d{seed}",
        "headline": "top1", "metrics": {"top1": {**metric, "value": value}},
        "dense_metrics": {"top1": {**metric, "value": dense + seed}},
        "epochs_finetune": finetuned, "epochs_prune": 0, "repair": "none",
    }  # fmt: skip


def test_at_a_recorded_size_it_is_the_mean_with_the_deviation_over_the_seeds():
    made = treatment([row(0.2, 60, 0), row(0.2, 64, 1), row(0.5, 80, 0), row(0.5, 83, 1)])
    found = made.at(0.2)
    assert (found.value, found.deviation) == (62, pytest.approx(stdev([60, 64])))
    assert made.at(0.5).value == pytest.approx(81.5)
    # The dense networks of the two seeds, each counted once, are the path's upper end.
    assert (made.at(1).value, made.at(1).deviation) == (pytest.approx(90.5), pytest.approx(stdev([90, 91])))
    assert "2 seeds" in made.basis
    assert "dense network" in made.basis


def test_of_one_seed_it_is_the_deviation_of_a_share_of_so_many_samples():
    made = treatment([row(0.2, 60, count=400), row(0.5, 80, count=400)])
    assert made.at(0.2).deviation == pytest.approx(100 * math.sqrt(0.6 * 0.4 / 400))
    low, high = (100 * math.sqrt(p * (1 - p) / 400) for p in (0.6, 0.8))
    assert made.at(0.3).deviation == pytest.approx(low + (high - low) / 3)
    assert "400 images" in made.basis
    assert treatment([row(0.2, 60, unit="")]).at(0.2).deviation is None


def test_it_never_falls_as_the_size_grows_and_stays_between_its_neighbours():
    values = {0.1: 50, 0.2: 70, 0.3: 66, 0.5: 84, 0.8: 85}
    made = treatment([row(share, value) for share, value in values.items()])
    curve = [made.at(0.1 + 0.9 * step / 200).value for step in range(201)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(curve))
    # The two that fall are pooled: the isotonic fit of equal weights is their mean.
    assert made.at(0.2).value == made.at(0.3).value == pytest.approx(68)
    assert 68 < made.at(0.4).value < 84


def test_outside_of_what_was_measured_nothing_is_said():
    made = treatment([row(0.2, 60, finetuned=3), row(0.5, 80, finetuned=3)])
    assert made.at(0.19) is made.at(0.51) is None
    assert "dense network" not in made.basis  # which was not finetuned
    assert made.at(0.501).value == 80  # within what a unit more or less makes
    assert "finetuned for 3 epochs" in made.label
