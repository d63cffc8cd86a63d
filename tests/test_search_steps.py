"""The table of what a shorter search costs, from rows of a record."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    monkeypatch.delitem(sys.modules, "search_steps", raising=False)
    import search_steps

    return search_steps


def row(steps, seed, cut, repaired, **changes):
    values = {
        "method": "spp",
        "recipes": {"update": {"steps": steps, "batch_size": 128}},
        "budget_asked": 0.3,
        "seed": seed,
        "epochs_finetune": 0,
        "val_metrics_before": {"top1": {"value": cut}},
        "val_metrics_repaired": {"top1": {"value": repaired}},
    }
    return {**values, **changes}


def test_rows_are_means_over_seeds_of_searches_that_were_asked_for_by_their_steps(module):
    rows = [
        *(row(10, seed, 40 + 10 * seed, 60) for seed in (0, 1)),
        row(200, 0, 70, 80),
        row(None, 0, 1, 1),
        row(10, 2, 1, 1, epochs_finetune=5),
    ]
    found = module.collect(rows)
    assert {(one["steps"], one["samples"], one["seed"], one["state"]) for one in found} == {
        (steps, 128 * steps, seed, state)
        for steps, seed in ((10, 0), (10, 1), (200, 0))
        for state in ("cut", "repaired")
    }
    table = module.to_markdown(found)
    assert "| 10 | 1,280 | 45.0 ± 7.1 |" in table
    assert "| 10 | 1,280 | 60.0 ± 0.0 |" in table
    assert "| 200 | 25,600 | 70.0 |" in table
