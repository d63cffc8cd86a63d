"""The table of language models where nothing was run: published values with their sources, and no command invented."""

import pytest

from spp.report.figures import perplexity
from spp.report.published import load_published
from spp.report.tables import llm
from spp.sparsity.config import SparsityConfig

PUBLISHED = load_published()


def make_language_row(make_row, **changes):
    entry = {"unit": "", "better": "lower", "count": 83, "of": "windows", "label": "perplexity"}
    axes = {"sparsity": 0.5, "keep": None, "of": None, "group": "row", "permutation": "none", "update": "none"}
    axes |= {"allocation": "uniform", "shrinkage": 0}
    own = {
        "task": "language", "headline": "perplexity", "model": "llama2_7b", "data": "wikitext2", "method": "wanda",
        "preset": None, "budget_kind": "weights", "window_losses": [1.9, 1.8], "dense_window_losses": [1.6, 1.7],
        "metrics": {"perplexity": {"value": 6.45, **entry}}, "dense_metrics": {"perplexity": {"value": 5.12, **entry}},
        "protocol": {"length": 4096, "num_windows": 83}, 
        "config": {"sparsity": axes, "method": {"name": "wanda"}, "dtype": "float16"},
        "calibration": {"name": "c4", "num_windows": 128, "length": 4096},
        "data_config": {"num_windows": None, "fingerprint": {"form": "raw"}},
    }  # fmt: skip
    return make_row(**{**own, **changes})


def test_without_members_only_what_is_published_is_shown(make_record):
    (table,) = llm.tables(make_record(), PUBLISHED)
    assert {row[9].text for row in table.rows} == {"not run"}
    assert len(table.rows) == len(PUBLISHED.perplexities)
    assert table.todo == ()
    assert all(value.source for value in PUBLISHED.perplexities)


def test_a_published_value_stands_beside_ours_where_all_that_counts_is_the_same(make_record, make_row):
    (table,) = llm.tables(make_record(make_language_row(make_row)), PUBLISHED)
    dense, wanda = table.rows[:2]
    assert (dense[2].text, dense[9].text, dense[10].text) == ("dense", "5.12", "5.12")
    assert (wanda[2].text, wanda[9].text, wanda[10].text) == ("wanda", "6.45", "6.42")
    assert any("Gate of the dense llama2_7b" in line and "met" in line for line in table.legend)
    other_text = make_language_row(make_row, data_config={"num_windows": None, "fingerprint": {"form": "tokens"}})
    (table,) = llm.tables(make_record(other_text), PUBLISHED)
    assert table.rows[1][10].text == ""


def test_a_dense_model_that_misses_its_gate_is_marked(make_record, make_row):
    row = make_language_row(make_row)
    row["dense_metrics"]["perplexity"]["value"] = 5.4
    (table,) = llm.tables(make_record(row), PUBLISHED)
    assert any("MISSED" in line for line in table.legend)


def test_members_in_other_numbers_are_other_rows(make_record, make_row):
    half, single = make_language_row(make_row), make_language_row(make_row)
    single["config"] = {**single["config"], "dtype": "float32"}
    (table,) = llm.tables(make_record(half, single), PUBLISHED)
    assert [row[-1].text for row in table.rows[:4]] == ["float16", "float32", "float16", "float32"]


def test_what_differs_in_any_setting_is_a_row_of_its_own_and_only_equal_windows_are_paired(make_record, make_row):
    def member(number, losses, axes=(), method="wanda", **changes):
        row = make_language_row(make_row, key=f"k{number}", method=method, window_losses=losses, **changes)
        row["config"] = {**row["config"], "sparsity": {**row["config"]["sparsity"], **dict(axes)}}
        row["config"]["method"] = {"name": method}
        return row

    short = {"protocol": {"length": 4096, "num_windows": 3}}
    rows = [
        member(0, [2.0, 2.1], method="ria"),
        member(1, [2.1, 2.3], {"update": "obs", "damping": 0.1}),
        member(2, [2.3, 2.7], {"update": "obs"}),
        member(3, [1.0, 1.2, 1.4], {"update": "obs"}, **short),
        member(4, [1.5, 1.6], {"permutation": "assignment", "shared_permutation": False}, method="magnitude"),
        member(5, [1.5, 1.6], {"allocation": "owl", "allocation_cap": 0.05}, method="ri"),
    ]
    (table,) = llm.tables(make_record(*rows), PUBLISHED)
    ours = [row for row in table.rows if row[9].text != "not run" and row[2].text != "dense"]
    assert len(ours) == 6
    assert {row[2].text for row in ours} == {
        "ria", "wanda (damping=0.1)", "wanda", "magnitude (shared_permutation=False)", "ri (allocation_cap=0.05)",
    }  # fmt: skip
    paired = {
        row["num_windows"]: row["difference_to_ria"]
        for row in table.data
        if row.get("settings") == "" and row["method"] == "wanda"
    }
    assert paired == {83: pytest.approx(0.45), 3: None}
    assert len(perplexity.draw(make_record(*rows), PUBLISHED)) == 2


def test_dense_networks_of_one_name_that_were_trained_otherwise_are_told_apart(make_record, make_row):
    rows = [
        make_language_row(make_row, key=f"k{epochs}{seed}", seed=seed, dense_config={"recipe": {"epochs": epochs}})
        for epochs in (1, 4)
        for seed in (0, 1)
    ]
    (table,) = llm.tables(make_record(*rows), PUBLISHED)
    assert [row[0].text for row in table.rows[2:4]] == ["llama2_7b (recipe.epochs=1)", "llama2_7b (recipe.epochs=4)"]
    assert {row["num_seeds"] for row in table.data if "num_seeds" in row} == {2}


def test_usual_settings_are_the_defaults_of_the_axes():
    axes = SparsityConfig()
    assert {name: getattr(axes, name) for name in llm.USUAL} == llm.USUAL


def test_the_figure_has_a_line_for_each_method_and_hollow_markers_for_patterns(make_record, make_row):
    def member(share, perplexity, method="wanda", **pattern):
        row = make_language_row(make_row, method=method, budget_asked=share)
        row["config"] = {
            **row["config"],
            "method": {"name": method},
            "sparsity": {**row["config"]["sparsity"], "sparsity": 1 - share, **pattern},
        }
        row["metrics"]["perplexity"]["value"] = perplexity
        return row

    rows = [member(0.5, 6.45), member(0.7, 5.5), member(0.5, 9.0, keep=2, of=4), member(0.5, 7.0, method="ria")]
    (drawing,) = perplexity.draw(make_record(*rows), PUBLISHED)
    (axes,) = drawing.figure.axes
    lines = {tuple(zip(line.get_xdata(), line.get_ydata(), strict=True)): line for line in axes.lines}
    assert ((30.0, 5.5), (50.0, 6.45)) in {tuple((round(x, 9), y) for x, y in points) for points in lines}
    assert ((50.0, 7.0),) in lines
    assert lines[((50.0, 9.0),)].get_markerfacecolor() == "none"
    assert 5.12 in {line.get_ydata()[0] for line in axes.lines}
    assert sorted(row["value"] for row in drawing.data) == [5.5, 6.45, 7.0, 9.0]


def test_of_one_share_the_figure_has_a_row_for_each_method_with_the_best_on_top(make_record, make_row):
    def member(method, perplexity, seed=0, **axes):
        row = make_language_row(make_row, method=method, budget_asked=0.5, seed=seed)
        row["config"] = {
            **row["config"],
            "method": {"name": method},
            "sparsity": {**row["config"]["sparsity"], "sparsity": 0.5, **axes},
        }
        row["metrics"]["perplexity"]["value"] = perplexity
        return row

    rows = [member("wanda", 9.0), member("wanda", 7.0, seed=1), member("ria", 6.0, update="obs"), member("ria", 20.0)]
    (drawing,) = perplexity.draw(make_record(*rows, member("ria", 30.0, keep=2, of=4)), PUBLISHED)
    shares, pattern = drawing.figure.axes
    assert [label.get_text() for label in shares.get_yticklabels()] == ["ria obs", "wanda", "ria"]
    assert [bars.lines[0].get_xdata()[0] for bars in shares.containers] == [6.0, 8.0, 20.0]
    assert (pattern.get_title(), [label.get_text() for label in pattern.get_yticklabels()]) == ("2:4", ["ria"])
    assert 5.12 in {line.get_xdata()[0] for line in shares.lines}
