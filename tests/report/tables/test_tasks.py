"""A record of two tasks in the tables that have all models and data sets together."""

import pytest

from spp.record.record import PathSource
from spp.report.published import load_published
from spp.report.tables import cifar10, cost, figure1, stability, table1, table6, table8

PUBLISHED = load_published()


@pytest.fixture
def mixed(make_row, make_error_row, make_record):
    """The same method on the same model and data, for two tasks."""
    return make_record(
        *(make(seed=seed, lr=lr) for make, lr in ((make_row, 0.1), (make_error_row, 0.2)) for seed in (0, 1))
    )


def test_figure1_has_a_table_for_each_task(mixed, texts_of):
    classified, regressed = figure1.tables(mixed, PUBLISHED)
    assert (classified.name, regressed.name) == ("figure1-summary-classification", "figure1-summary-regression")
    assert [line["top-1 (%)"] for line in texts_of(classified)] == ["97.0", "96.0 ± 0.0"]
    assert [line["error"] for line in texts_of(regressed)] == ["0.0811", "0.0832 ± 0.0000"]
    assert [line["value"] for line in regressed.data] == [pytest.approx(0.0832)]
    assert "Error (lower is better) on 297 test images" in regressed.legend[0]
    assert regressed.todo == ()  # the paper's figure is of another task


@pytest.mark.parametrize(("module", "method"), [(cost, "spp (priced)"), (table6, None)])
def test_costs_and_recipes_name_the_task_where_there_are_several(mixed, make_record, module, method, texts_of):
    (table,) = module.tables(mixed, PUBLISHED)
    ours = [line for line in texts_of(table) if "ours" in (line.get("source"), line.get("recipe"))]
    assert [line["task"] for line in ours] == ["classification", "regression"]
    (table,) = module.tables(make_record(*mixed.rows[:2]), PUBLISHED)
    assert "task" not in [column.title for column in table.columns]


def test_table1_holds_other_tasks_apart_and_in_their_own_unit(mixed, texts_of):
    _, classified, regressed = table1.tables(mixed, PUBLISHED)
    assert (classified.name, regressed.name) == ("table1-classification-vit-digits", "table1-regression-vit-digits")
    assert [line["ours (%)"] for line in texts_of(classified)] == ["97.0", "96.0 ± 0.0"]
    line = texts_of(regressed)[1]
    assert (line["metric"], line["ours"], line["test images"]) == ("error", "0.0832 ± 0.0000", "297")
    assert regressed.legend[0].startswith("Error (lower is better); ours are on the test set")


def test_another_task_of_a_papers_model_is_not_held_against_the_paper(make_error_row, make_record, texts_of):
    rows = [make_error_row(model="deit_small", data="imagenet", macs=2.6e9), make_error_row(data="cifar10")]
    paper, deit, cifar = table1.tables(make_record(*rows), PUBLISHED)
    assert {line["ours (%)"] for line in texts_of(paper)} == {"not run"}
    assert [line["ours"] for line in texts_of(deit)] == ["0.0811", "0.0832"]
    assert [line["ours"] for line in texts_of(cifar)] == ["0.0811", "0.0832"]
    assert all(line["ours (%)"] == "not run" for line in texts_of(cifar10.tables(make_record(*rows), PUBLISHED)[0]))


def test_table8_does_not_mix_tasks(make_row, make_error_row, make_record, texts_of):
    rows = [
        make(variant=f"method.lam={lam}", method_config={"kappa": None, "lam": lam})
        for make in (make_row, make_error_row)
        for lam in (0.2, 0.4)
    ]
    classified, regressed = table8.tables(make_record(*rows), PUBLISHED)
    assert [line["lambda 0.2"] for line in texts_of(classified)] == ["96.0"]
    assert [line["lambda 0.2"] for line in texts_of(regressed)] == ["0.0832"]
    assert classified.name != regressed.name
    assert classified.legend[0].startswith("Top-1 in percent after finetuning on 297 test images")


def test_stability_takes_unit_and_deviations_of_its_own_task(mixed, make_error_row, make_record, texts_of, monkeypatch):
    none = {name: [] for share in stability.SHARES for name in (f"overlap_{share:g}", f"chance_{share:g}")}
    monkeypatch.setattr(stability, "path_statistics", lambda artifacts: None)
    monkeypatch.setattr(stability, "measure", lambda statistics: {"stays": [], "tau": [], **none})
    errors = [make_error_row(seed=seed, error=error) for seed, error in ((0, 0.08), (1, 0.09))]
    paths = [PathSource("k", "spp", "priced", "", "regression", "vit", "digits", seed, None) for seed in (0, 1)]
    record = make_record(*mixed.rows[:2], *errors)
    (table,) = stability.tables(type(record)(record.rows, paths, (), "test"), PUBLISHED)
    (line,) = texts_of(table)
    assert line["error deviation"] == "0.00707"
    assert "Error deviation: standard deviation over seeds, mean over the budgets." in table.legend[1]
