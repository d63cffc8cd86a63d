import csv
import statistics

import pytest

from spp.report.groups import group_rows
from spp.report.published import load_published
from spp.report.table_text import to_csv, to_markdown
from spp.report.tables import family

PUBLISHED = load_published()


def table_of(table):
    head = [column.title for column in table.columns]
    return [dict(zip(head, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_one_row_per_budget_beside_the_dense_model(make_row, make_record):
    record = make_record(make_row(), make_row(budget_asked=0.3, macs=30e6, top1=95.0))
    (table,) = family.tables(record, PUBLISHED)
    dense, half, third = table_of(table)
    assert dense["FLOPs (G)"] == "0.1"
    assert half == {
        "method": "spp",
        "asked": "macs 50 %",
        "params (M)": "1.5",
        "FLOPs (G)": "0.05",
        "of dense": "50.0 %",
        "top-1 before": "90.0",
        "top-1 after": "96.0",
        "to dense": "-1.0",
    }
    assert third["to dense"] == "-2.0"


def test_small_networks_have_their_flops_in_millions(make_row, make_record):
    (table,) = family.tables(make_record(make_row(macs=2_600_000, dense_macs=5_240_000)), PUBLISHED)
    assert [row["FLOPs (M)"] for row in table_of(table)] == ["5.24", "2.6"]


def test_seeds_become_mean_and_standard_deviation(make_row, make_record):
    accuracies, dense = [96.0, 95.0, 97.3], [97.0, 98.0, 98.5]
    rows = [
        make_row(seed=s, top1=a, dense_top1=d, dense_key=f"d{s}", search_key=f"p{s}")
        for s, (a, d) in enumerate(zip(accuracies, dense, strict=True))
    ]
    (table,) = family.tables(make_record(*rows), PUBLISHED)
    dense_line, line = table_of(table)
    assert line["top-1 after"] == f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
    assert dense_line["top-1 after"] == f"{statistics.mean(dense):.1f} ± {statistics.stdev(dense):.1f}"
    assert "over 3 seeds" in table.legend[0]
    assert "3 searches" in table.legend[0]


def test_presets_kinds_models_and_data_are_never_mixed(make_row, make_record):
    others = [
        {"preset": "released"},
        {"variant": "method.rho=2"},
        {"budget_kind": "params"},
        {"model": "swin"},
        {"data": "cifar10"},
    ]
    rows = [make_row(), *(make_row(**other) for other in others)]
    assert len(group_rows(rows)) == 6
    tables = family.tables(make_record(*rows), PUBLISHED)
    assert [table.name for table in tables] == ["family-vit-digits", "family-swin-digits", "family-vit-cifar10"]
    text = to_markdown(tables[0])
    assert "spp (released)" in text
    assert "spp (method.rho=2)" in text


def test_csv_has_the_rows_as_they_are(make_row, make_record):
    (table,) = family.tables(make_record(make_row()), PUBLISHED)
    (read,) = csv.DictReader(to_csv(table).splitlines())
    assert float(read["top1"]) == pytest.approx(96.0)
    columns = {"metrics", "metrics_before", "dense_metrics", "val_metrics", "config"}
    assert read.keys() >= make_row().keys() - columns
    assert [float(read[name]) for name in ("top1_before", "dense_top1", "val_top1", "top5")] == [90.0, 97.0, 95.0, 99.0]
    assert (read["top1_unit"], read["top1_better"], read["top1_count"], read["top1_of"]) == (
        "%",
        "higher",
        "297",
        "images",
    )
    assert read["method_config"] == '{"kappa": null, "lam": null}'


def test_without_members_there_is_no_family(make_record):
    with pytest.raises(ValueError, match="no finished member; allowed"):
        family.tables(make_record(), PUBLISHED)


def test_an_error_has_its_own_digits_and_is_better_where_it_is_lower(make_error_row, make_record):
    rows = [make_error_row(), make_error_row(budget_asked=0.3, error=0.0791)]
    (table,) = family.tables(make_record(*rows), PUBLISHED)
    dense, half, third = table_of(table)
    assert dense["error after"] == "0.0811"
    assert (half["error before"], half["error after"], half["to dense"]) == ("0.125", "0.0832", "+0.0021")
    assert third["to dense"] == "-0.0020"
    hints = [row[-1].hint for row in table.rows]
    assert hints == ["", "worse than the dense network", "better than the dense network"]
    assert "Error (lower is better) is on the test set of 297 images" in table.legend[0]
    assert "the change of error." in table.legend[0]
    (read, _) = csv.DictReader(to_csv(table).splitlines())
    assert (read["headline"], read["error"], read["error_better"]) == ("error", "0.0832", "lower")


def test_two_tasks_have_tables_of_their_own(make_row, make_error_row, make_record):
    tables = family.tables(make_record(make_row(), make_error_row()), PUBLISHED)
    assert [table.name for table in tables] == ["family-classification-vit-digits", "family-regression-vit-digits"]
    assert [table.title for table in tables] == ["vit on digits, classification", "vit on digits, regression"]
    assert [len(table.rows) for table in tables] == [2, 2]
    assert "top-1 after" in table_of(tables[0])[0]
    assert "error after" in table_of(tables[1])[0]


def test_what_was_repaired_and_how_far_members_are_from_dense_stand_beside(make_row, make_record):
    shared = {"unit": "nats", "better": "lower", "count": 297, "of": "images", "label": "KL to dense"}
    row = make_row(top1=96.0)
    row["metrics"]["kl"] = {"value": 0.0123, **shared}
    row["metrics_repaired"] = {"top1": {**row["metrics"]["top1"], "value": 95.0}, "kl": {"value": 0.0456, **shared}}
    (table,) = family.tables(make_record(row), PUBLISHED)
    dense, line = table_of(table)
    assert [line[f"top-1 {when}"] for when in ("before", "repaired", "after")] == ["90.0", "95.0", "96.0"]
    assert [line[f"KL to dense (nats) {when}"] for when in ("repaired", "after")] == ["0.0456", "0.0123"]
    assert (dense["KL to dense (nats) after"], dense["top-1 repaired"], dense["top-1 after"]) == ("", "", "97.0")
    assert "before, repaired in closed form, and after finetuning" in table.legend[0]
    (read,) = csv.DictReader(to_csv(table).splitlines())
    assert (read["kl"], read["kl_repaired"], read["top1_repaired"]) == ("0.0123", "0.0456", "95.0")
